package hook_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gorminfra/infra/internal/testbed"
)

// GORM starts a goroutine for each store of prepared statements and never ends
// it, bare as with the plugin.
func TestMain(m *testing.M) {
	testbed.Main(m, goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"))
}

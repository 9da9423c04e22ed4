package slowlog

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestMain(m *testing.M) {
	// GORM's store of prepared statements has a goroutine that nothing ends.
	testbed.Main(m, goleak.IgnoreTopFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"))
}

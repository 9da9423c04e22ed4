package slowlog

import (
	"testing"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

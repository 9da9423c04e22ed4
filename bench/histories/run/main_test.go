package run

import (
	"testing"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestMain(m *testing.M) {
	if beWorker() {
		return
	}
	testbed.Main(m)
}

package testbed_test

import (
	"context"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

// deadline is for waits that end by themselves when the code is right.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

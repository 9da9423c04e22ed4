package main

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/httprate"
	"github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/store/memory"

	"github.com/gorminfra/infra/limithook"
)

// Four minutes of more than the limit, from just before the border of a fixed window
// on, in virtual time. What peers admit is told, not judged.
func TestFullestWindowInVirtualTime(t *testing.T) {
	const window = time.Minute
	var ours, chi, fixed int
	synctest.Test(t, func(t *testing.T) {
		l, err := limithook.NewLimiter(limithook.Config{PerUser: limithook.Per(fullestLimit, window)})
		if err != nil {
			t.Fatal(err)
		}
		ctx := limithook.WithUser(t.Context(), "ann")
		ours = fullest(hammer(window, func() bool { return l.Allow(ctx) == nil }), window)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		l := httprate.NewRateLimiter(fullestLimit, window)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		chi = fullest(hammer(window, func() bool { return !l.OnLimit(header{h: http.Header{}}, r, "ann") }), window)
	})
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStoreWithOptions(limiter.StoreOptions{Prefix: "x"}) // without its goroutine
		rate := limiter.Rate{Limit: fullestLimit, Period: window}
		fixed = fullest(hammer(window, func() bool {
			c, err := store.Get(t.Context(), "ann", rate)
			return err == nil && !c.Reached
		}), window)
	})
	t.Logf(fullestMark+" %d %d %d", ours, chi, fixed)
	if ours != fullestLimit {
		t.Errorf("%d in the fullest window, limit %d", ours, fullestLimit)
	}
	if chi == 0 || fixed == 0 {
		t.Error("a peer admits nothing: not asked as it should be")
	}
}

func TestFullestWindow(t *testing.T) {
	for _, c := range []struct {
		at   []time.Duration
		want int
	}{{nil, 0}, {[]time.Duration{1, 2, 3, 11}, 3}, {[]time.Duration{1, 11}, 1}, {[]time.Duration{1, 10, 10}, 3}} {
		if got := fullest(c.at, 10); got != c.want {
			t.Errorf("%v: %d, want %d", c.at, got, c.want)
		}
	}
}

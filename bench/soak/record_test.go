package main

import (
	"strings"
	"testing"

	"github.com/gorminfra/infra/limithook"
)

func TestFullestCountsWhatLiesInOneWindowForCertain(t *testing.T) {
	t.Parallel()
	const w = int64(window)
	for name, c := range map[string]struct {
		spans []span
		want  int
	}{
		"none":                      {nil, 0},
		"one":                       {[]span{{1, 2}}, 1},
		"together":                  {[]span{{1, 2}, {1, 3}, {2, 4}}, 3},
		"a window apart":            {[]span{{0, 1}, {w + 1, w + 2}}, 1},
		"perhaps a window apart":    {[]span{{0, 10}, {5, w + 5}}, 1},
		"less than a window apart":  {[]span{{10, 20}, {w, w + 9}}, 2},
		"a long one holds no other": {[]span{{0, 2 * w}, {w, w + 1}, {w + 2, w + 3}}, 2},
	} {
		if got := fullest(c.spans); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestABrokenBoundIsTold(t *testing.T) {
	t.Parallel()
	many := make([]span, perUser+1)
	f := fault{name: "x", windows: 1}
	for name, c := range map[string]struct {
		r    *record
		want string
	}{
		"kept":      {&record{longest: timeout, users: [][]span{many[:perUser]}, all: many}, ""},
		"too many":  {&record{users: [][]span{many}, all: many}, "ABOVE"},
		"in time":   {&record{longest: timeout + leeway, users: [][]span{nil}}, ""},
		"too long":  {&record{longest: timeout + leeway + 1, users: [][]span{nil}}, "WAITED"},
		"late once": {&record{longest: 3 * timeout / 2, late: timeout / 2, users: [][]span{nil}}, ""},
		"too late":  {&record{longest: 2 * timeout, late: timeout / 2, users: [][]span{nil}}, "WAITED"},
	} {
		var out strings.Builder
		if broken := c.r.print(&out, f, limithook.Local); broken != (c.want != "") || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: broken %v, %s", name, broken, out.String())
		}
	}
}

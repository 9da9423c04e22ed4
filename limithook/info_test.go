package limithook

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func of(name string) context.Context { return tenant(context.Background(), name) }

var byTenant = Rule{Name: "tenant", Rate: PerMinute(3), Key: tenantOf}

func TestL05RulesAndTheGlobalLimitAreToldAndReset(t *testing.T) {
	t.Parallel()
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := store(Config{Global: PerMinute(8), Rules: []Rule{
				byTenant, {Name: "off", Key: byTenant.Key}, {Name: "table", KeyOf: ByTable, Rate: PerMinute(5)},
			}})
			l := testLimiter(t, cfg, monotonic)
			told := func(rule, key string, allowed bool, limit, remaining int) {
				t.Helper()
				d, err := l.RuleInfo(t.Context(), rule, key)
				if err != nil || d.Allowed != allowed || d.Limit != limit || d.Remaining != remaining || (d.RetryAfter > 0) == allowed ||
					limit > 0 && d.Scope != Scope(rule) || (d.ResetAfter > 0) != (remaining < limit) {
					t.Errorf("%s %.9q: %+v, %v", rule, key, d, err)
				}
			}
			for i := range 4 {
				if err := l.Allow(of("acme")); (err == nil) != (i < 3) {
					t.Fatalf("request %d: %v", i, err)
				}
			}
			hostile := strings.Repeat("{long} #", 20)
			for _, key := range []string{"#1", hostile} {
				if err := l.Allow(of(key)); err != nil {
					t.Fatal(err)
				}
				told("tenant", key, true, 3, 2)
			}
			for range 2 { // nobody is charged
				told("tenant", "acme", false, 3, 0)
				told("tenant", "other", true, 3, 3)
				told("table", "products", true, 5, 5)
				told("off", "acme", true, 0, 0)
				told("tenant", "", true, 0, 0)
			}
			if err := l.ResetRule(t.Context(), "tenant", "acme"); err != nil {
				t.Error(err)
			}
			told("tenant", "acme", true, 3, 3)
			told("tenant", hostile, true, 3, 2)
			if err := l.ResetRule(t.Context(), "tenant", hostile); err != nil {
				t.Error(err)
			}
			told("tenant", hostile, true, 3, 3)

			for _, tenant := range []string{"a", "b", "c"} {
				if err := l.Allow(of(tenant)); err != nil {
					t.Fatal(err)
				}
			}
			told("tenant", "d", false, 3, 3) // by the global limit
			if err := l.ResetGlobal(t.Context()); err != nil {
				t.Error(err)
			}
			if d, err := l.Info(t.Context(), ""); err != nil || d.Remaining != 8 {
				t.Errorf("after a reset of the global limit: %+v, %v", d, err)
			}
			if err := l.Allow(of("d")); err != nil {
				t.Error(err)
			}
			for what, err := range map[string]error{
				"no such rule":  l.ResetRule(t.Context(), "route", "x"),
				"an empty key":  l.ResetRule(t.Context(), "tenant", ""),
				"a rule of 0":   l.ResetRule(t.Context(), "off", "x"),
				"no user limit": l.Reset(t.Context(), "ann"),
			} {
				if err == nil {
					t.Errorf("%s: reset", what)
				}
			}
			if _, err := l.RuleInfo(t.Context(), "route", "x"); err == nil {
				t.Error("a rule that is not there is told")
			}
		})
	}
}

func TestL05ResetOfARuleElsewhereEndsARememberedRefusal(t *testing.T) {
	t.Parallel()
	cfg := onRedis(t, Config{Rules: []Rule{byTenant}, Lease: Lease{Max: 1}})
	l, other := testLimiter(t, cfg, monotonic), testLimiter(t, cfg, monotonic)
	for l.Allow(of("acme")) == nil {
	}
	if err := other.ResetRule(t.Context(), "tenant", "acme"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reset is seen", func() bool { return l.Allow(of("acme")) == nil })
}

func TestL05GlobalResetTakesAllShards(t *testing.T) {
	t.Parallel()
	global := PerMinute(8)
	global.Shards = 4
	l := testLimiter(t, onRedis(t, Config{Global: global, Lease: Lease{Max: 1}}), monotonic)
	for i := range 50 {
		_ = l.Allow(as(strconv.Itoa(i)))
	}
	if d, err := l.Info(t.Context(), ""); err != nil || d.Remaining != 0 {
		t.Fatalf("%+v, %v", d, err)
	}
	if err := l.ResetGlobal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := l.Info(t.Context(), ""); err != nil || d.Remaining != 8 {
		t.Errorf("%+v, %v", d, err)
	}
}

// What was leased while the clock of Redis was ahead of its time would be charged until
// that time comes.
func TestL04ResetMendsAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	cfg := onRedis(t, Config{PerUser: Per(64, time.Minute), Global: Per(640, time.Minute)})
	server := newClockedRedis(t)
	now, err := server.client.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	server.set(now.Add(365 * 24 * time.Hour).UnixMicro())
	ahead := server.limiter(cfg, monotonic)
	for range 20 {
		if err := ahead.Allow(as("a")); err != nil {
			t.Fatal(err)
		}
	}
	l := testLimiter(t, cfg, monotonic)
	if d, err := l.Info(t.Context(), "a"); err != nil || d.Remaining >= 64 || d.ResetAfter < 24*time.Hour {
		t.Fatalf("%+v, %v", d, err)
	}
	for _, err := range []error{l.Reset(t.Context(), "a"), l.ResetGlobal(t.Context())} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for user, want := range map[string]int{"a": 64, "": 640} {
		if d, err := l.Info(t.Context(), user); err != nil || d.Remaining != want || d.ResetAfter != 0 {
			t.Errorf("%q: %+v, %v", user, d, err)
		}
	}
}

func TestInfoIsToldToClientsAsADecisionIs(t *testing.T) {
	t.Parallel()
	for _, shadow := range []bool{false, true} {
		l := testLimiter(t, Config{PerUser: PerMinute(1), UnixReset: true, Shadow: shadow}, monotonic)
		for range 2 {
			_ = l.Allow(as("a"))
		}
		d, err := l.Info(t.Context(), "a")
		if err != nil || d.Allowed {
			t.Errorf("%+v, %v", d, err)
		}
		h := http.Header{}
		SetHeaders(h, d)
		got := h.Values(HeaderReset)
		if shadow {
			if len(h) > 0 {
				t.Errorf("in shadow mode clients are told %v", h)
			}
		} else if _, err := strconv.Atoi(slices.Concat(got, []string{""})[0]); err != nil {
			t.Errorf("%v is not in Unix seconds", got)
		}
	}
}

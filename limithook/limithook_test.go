package limithook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestMain(m *testing.M) {
	// GORM's store of prepared statements starts a goroutine that nothing ends.
	testbed.Main(m, goleak.IgnoreTopFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"))
}

func as(id string) context.Context { return WithUser(context.Background(), id) }

func TestRefusalIsATypedError(t *testing.T) {
	t.Parallel()
	clock := &virtual{}
	l := testLimiter(t, Config{PerUser: PerMinute(2)}, clock.read)
	for range 2 {
		if err := l.Allow(as("alice@example.org")); err != nil {
			t.Fatal(err)
		}
	}
	clock.now = int64(20*time.Second) + 1
	err := fmt.Errorf("wrapped: %w", l.Allow(as("alice@example.org")))
	if !errors.Is(err, ErrLimited) || errors.Is(err, ErrUnavailable) {
		t.Fatalf("%v: wrong sentinel", err)
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is no *Error", err)
	}
	if e.Scope != ScopeUser || e.Limit != 2 || e.Window != time.Minute || e.Remaining != 0 || e.RetryAfter != 40*time.Second {
		t.Errorf("%+v", e)
	}
	if in := time.Until(e.Reset); in < 39*time.Second || in > 40*time.Second {
		t.Errorf("reset in %v", in)
	}
	if e.User == "" || strings.Contains(err.Error()+e.User, "alice") {
		t.Errorf("identity shown: %v, user %q", err, e.User)
	}
	if err := l.Allow(as("bob")); err != nil {
		t.Errorf("another user: %v", err)
	}
}

func TestRefusedByOneLimitChargesNone(t *testing.T) {
	t.Parallel()
	for name, redis := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := redis(Config{PerUser: PerMinute(3), Global: PerMinute(5)})
			l := testLimiter(t, cfg, monotonic)
			charged := func(user string, wantUser, wantGlobal int) {
				t.Helper()
				u, err := l.Info(context.Background(), user)
				if err != nil {
					t.Fatal(err)
				}
				g, err := l.Info(context.Background(), "")
				if err != nil {
					t.Fatal(err)
				}
				if got := 3 - u.Remaining; got != wantUser {
					t.Errorf("%s is charged %d, want %d", user, got, wantUser)
				}
				if got := 5 - g.Remaining; got != wantGlobal {
					t.Errorf("global is charged %d, want %d", got, wantGlobal)
				}
			}
			try := func(user string, cost int) Scope {
				t.Helper()
				d, err := l.Decide(as(user), cost)
				if err != nil {
					t.Fatal(err)
				}
				if d.Allowed {
					return ""
				}
				return d.Scope
			}
			if s := try("a", 2); s != "" {
				t.Fatal("refused by", s)
			}
			if s := try("a", 2); s != ScopeUser {
				t.Fatalf("refused by %q", s)
			}
			charged("a", 2, 2)
			if s := try("a", 1); s != "" {
				t.Fatal("a cheaper request is refused by", s)
			}
			for range 50 {
				if s := try("a", 1); s != ScopeUser {
					t.Fatalf("refused by %q", s)
				}
			}
			charged("a", 3, 3)
			if s := try("b", 2); s != "" {
				t.Fatal("refused by", s)
			}
			for range 50 {
				if s := try("c", 1); s != ScopeGlobal {
					t.Fatalf("refused by %q", s)
				}
			}
			charged("c", 0, 5)
			charged("b", 2, 5)
		})
	}
}

func TestCost(t *testing.T) {
	t.Parallel()
	l := testLimiter(t, Config{PerUser: PerMinute(3), Global: PerMinute(20_000)}, monotonic)
	for _, n := range []int{-1, 0, 4, 10_001} {
		if err := l.AllowN(as("a"), n); !errors.Is(err, ErrCost) || errors.Is(err, ErrLimited) {
			t.Errorf("cost %d: %v", n, err)
		}
	}
	if err := l.AllowN(context.Background(), 4); err != nil {
		t.Errorf("without a user its limit does not bound the cost: %v", err)
	}
	if err := l.AllowN(as("a"), 3); err != nil {
		t.Error(err)
	}
}

func TestBypassIsCountedAndNeverCharged(t *testing.T) {
	t.Parallel()
	l := testLimiter(t, Config{PerUser: PerMinute(1), Global: PerMinute(1)}, monotonic)
	for _, ctx := range []context.Context{Bypass(as("root")), WithUser(Bypass(context.Background()), "root"), WithoutUser(Bypass(as("root")))} {
		for range 3 {
			if err := l.Allow(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	if st := l.Stats(); st.Bypassed != 9 || st.Admitted != 0 {
		t.Errorf("%+v", st)
	}
	if err := l.Allow(as("root")); err != nil {
		t.Errorf("bypassed requests were charged: %v", err)
	}
}

func TestAnonymous(t *testing.T) {
	t.Parallel()
	none := context.Background()
	t.Run("share one identity that no user has", func(t *testing.T) {
		t.Parallel()
		l := testLimiter(t, Config{PerUser: PerMinute(1), Global: PerMinute(5), Anonymous: "guest"}, monotonic)
		if err := l.Allow(none); err != nil {
			t.Fatal(err)
		}
		if err := l.Allow(none); !errors.Is(err, ErrLimited) {
			t.Errorf("second anonymous request: %v", err)
		}
		for _, ctx := range []context.Context{as("guest"), WithoutUser(none), WithoutUser(none), WithoutUser(as("guest"))} {
			if err := l.Allow(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("are held to the global limit alone", func(t *testing.T) {
		t.Parallel()
		l := testLimiter(t, Config{PerUser: PerMinute(1), Global: PerMinute(2)}, monotonic)
		for i := range 3 {
			d, _ := l.Decide(none, 1)
			if d.Allowed != (i < 2) || d.Scope != ScopeGlobal {
				t.Errorf("request %d: %+v", i, d)
			}
		}
	})
	t.Run("pass where there is no global limit", func(t *testing.T) {
		t.Parallel()
		l := testLimiter(t, Config{PerUser: PerMinute(1)}, monotonic)
		for range 3 {
			if err := l.Allow(none); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestHostileIdentitiesAreApartAndHashed(t *testing.T) {
	t.Parallel()
	ids := []string{
		"", " ", "a", "A", "a ", "{a}", "}{", "a\x00", "a\nb", "a\r\nDEL x", "\xff\xfe", "#a", "#" + digest("", 16), "u:a", "a:a", "g", "log:g",
		"\u202e", "\u00e9", "e\u0301", strings.Repeat("x", 64), strings.Repeat("x", 65), strings.Repeat("x", 1<<20), "*", "[a]", "..",
	}
	for name, redis := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := testLimiter(t, redis(Config{PerUser: PerMinute(1), Anonymous: "a"}), monotonic)
			for _, id := range append(ids, "last") {
				if err := l.Allow(as(id)); err != nil {
					t.Errorf("%.20q is charged for another: %v", id, err)
				}
			}
			for _, id := range ids {
				if err := l.Allow(as(id)); !errors.Is(err, ErrLimited) {
					t.Errorf("%.20q: %v", id, err)
				}
			}
			if err := l.Allow(context.Background()); err != nil {
				t.Errorf("anonymous: %v", err)
			}
		})
	}
	for _, id := range ids {
		if key := newSubject("u:", id).key; len(key) > 2+maxPlainID || strings.ContainsAny(key, "{} \r\n\x00") {
			t.Errorf("%.20q is stored as %q", id, key)
		}
	}
	if id, ok := User(as("{a}")); id != "{a}" || !ok {
		t.Errorf("User gives %q, %v", id, ok)
	}
	if _, ok := User(context.Background()); ok {
		t.Error("User of a bare context")
	}
	if id, ok := User(Bypass(as("b"))); id != "b" || !ok {
		t.Error("Bypass forgets the user")
	}
}

func TestInfoChargesNobodyAndResetForgets(t *testing.T) {
	t.Parallel()
	for name, redis := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := testLimiter(t, redis(Config{PerUser: PerMinute(2), Global: PerMinute(100)}), monotonic)
			ctx := context.Background()
			info := func() Decision {
				t.Helper()
				d, err := l.Info(ctx, "a")
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			for range 5 {
				if d := info(); !d.Allowed || d.Limit != 2 || d.Remaining != 2 || d.ResetAfter != 0 || d.Scope != ScopeUser {
					t.Fatalf("before: %+v", d)
				}
			}
			for range 2 {
				if err := l.Allow(as("a")); err != nil {
					t.Fatal(err)
				}
			}
			if d := info(); d.Allowed || d.Remaining != 0 || d.RetryAfter < 50*time.Second || d.RetryAfter != d.ResetAfter {
				t.Fatalf("used up: %+v", d)
			}
			if err := l.Allow(as("a")); !errors.Is(err, ErrLimited) {
				t.Fatal(err)
			}
			if err := l.Reset(ctx, "a"); err != nil {
				t.Fatal(err)
			}
			if d := info(); !d.Allowed || d.Remaining != 2 {
				t.Fatalf("after reset: %+v", d)
			}
			if err := l.Allow(as("a")); err != nil {
				t.Fatalf("after reset: %v", err)
			}
			if err := l.Reset(ctx, ""); err == nil {
				t.Error("reset of nobody gives no error")
			}
		})
	}
}

func TestConfigFaultsNameFieldValueAndRule(t *testing.T) {
	t.Parallel()
	err := Config{
		PerUser: Limit{Max: 0, Window: time.Minute}, Global: Limit{Max: -1, Window: time.Microsecond}, Name: "a{b}", OnRedisFailure: 7, Count: 9,
		Timeout: -1, Instances: -2, MaxKeys: -3, Lease: Lease{Max: 100_000, For: -4},
		Rules: []Rule{{}, {Name: "user", Key: ByRoute, KeyOf: ByTable, Rate: Limit{Max: 70, Window: time.Second, Shards: 65}}, {Name: "a:b", Key: ByRoute}, {Name: "a:b", Key: ByRoute}},
	}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"PerUser.Max is 0: must be", "Global.Max is -1: must be", "Global.Window is 1µs: must be", `Name is "a{b}": must be`, "OnRedisFailure is Mode(7): must be",
		"Count is Counted(9): must be", "Timeout is -1ns: must not", "Instances is -2: must", "MaxKeys is -3: must", "Lease.Max is 100000: must", "Lease.For is -4ns: must",
		`Rules[0].Name is "": must be`, "Rules[0].Key and KeyOf: one", `Rules[1].Name is "user": must be its own`, "Rules[1].Key and KeyOf: one",
		"Rules[1].Rate.Shards is 65: must be 0", "Rules[1].Rate.Shards is 65: must be from", `Rules[2].Name is "a:b": must be of`, `Rules[3].Name is "a:b": must be its own`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	for _, c := range []Config{
		{PerUser: Limit{Max: 5}}, {PerUser: Limit{Max: 1<<31 + 1, Window: time.Second}}, {Global: Limit{Max: 1, Window: 367 * 24 * time.Hour}},
		{PerUser: PerSecond(1), Lease: Lease{For: 501 * time.Millisecond}}, {Name: strings.Repeat("n", 65)}, {Name: "a b"},
		{PerUser: Limit{Max: 10, Window: time.Second, Shards: 2}}, {Global: Limit{Max: 3, Window: time.Second, Shards: 4}},
		{Global: Limit{Max: 10, Window: time.Second, Shards: 2}, Rules: []Rule{{Name: "r", Key: ByRoute}}}, {Rules: make([]Rule, 9)},
	} {
		if _, err := NewLimiter(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	for _, c := range []Config{
		{}, {PerUser: Limit{Max: 1 << 31, Window: time.Millisecond}}, {Global: PerSecond(1)}, {Name: "shop-1", MaxKeys: 1, Lease: Lease{Max: 1}},
		{Identity: func(*http.Request) string { return "" }}, {Rules: []Rule{{Name: "r", Key: ByRoute}}}, {Global: Limit{Max: 64, Window: time.Second, Shards: 64}},
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestFaultsOfALimitNameTheFieldThatHoldsIt(t *testing.T) {
	t.Parallel()
	const limit, window = "shop: Requests.Max is 0: must be from 1 to 2147483648, or the whole limit zero for none", "shop: Requests.Window is 1ns: must be from 1ms to 8784h"
	for l, want := range map[Limit]string{
		{}: "", PerMinute(1): "", Per(1<<31, time.Millisecond): "", Per(0, time.Second): limit, Per(1, 1): window, Per(0, 1): limit + "\n" + window,
	} {
		got := ""
		if err := l.Validate("shop: Requests"); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%+v: %q, want %q", l, got, want)
		}
	}
}

func TestNothingToDo(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, {Disabled: true, PerUser: PerMinute(1)}} {
		l := testLimiter(t, cfg, monotonic)
		for range 3 {
			if d, err := l.Decide(as("a"), 1); err != nil || !d.Allowed || d.Limit != 0 {
				t.Errorf("%+v, %v", d, err)
			}
		}
	}
	l := testLimiter(t, Config{PerUser: PerMinute(1)}, monotonic)
	_ = l.Close()
	for range 3 {
		if err := l.Allow(as("a")); err != nil {
			t.Errorf("after Close: %v", err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestMemoryIsExactUnderConcurrency(t *testing.T) {
	t.Parallel()
	l := testLimiter(t, Config{PerUser: PerMinute(50), Global: PerMinute(120)}, monotonic)
	var wg sync.WaitGroup
	for g := range 40 {
		wg.Go(func() {
			ctx := as(fmt.Sprint(g % 3))
			for range 50 {
				_, _ = l.Decide(ctx, 1)
			}
		})
	}
	wg.Wait()
	if st := l.Stats(); st.Admitted != 120 || st.Keys != 3 {
		t.Errorf("%+v, want 120 admitted of 3 users", st)
	}
}

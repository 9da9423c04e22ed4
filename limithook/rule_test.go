package limithook

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/scope"
)

type tenantKey struct{}

func tenant(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, tenantKey{}, name)
}

func tenantOf(ctx context.Context) string { s, _ := ctx.Value(tenantKey{}).(string); return s }

func TestL02RulesAreChargedWithTheOthersOrNotAtAll(t *testing.T) {
	t.Parallel()
	for name, redis := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := testLimiter(t, redis(Config{
				PerUser: PerMinute(5), Global: PerMinute(9), Lease: Lease{Max: 1},
				Rules: []Rule{{Name: "tenant", Key: tenantOf, Rate: PerMinute(3)}, {Name: "route", Key: ByRoute, Rate: Per(4, time.Hour)}},
			}), monotonic)
			routed, s, _ := scope.Begin(context.Background(), "GET /orders")
			defer s.End()
			step := func(what string, ctx context.Context, n int, by Scope) {
				t.Helper()
				d, err := l.Decide(ctx, n)
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case d.Allowed != (by == ""):
					t.Fatalf("%s: %+v", what, d)
				case !d.Allowed && d.Scope != by:
					t.Fatalf("%s: refused by %s, want %s", what, d.Scope, by)
				}
			}
			in := func(user, name string) context.Context { return tenant(as(user), name) }
			step("three of a tenant", in("a", "acme"), 3, "")
			step("the tenant is at its limit", in("b", "acme"), 1, "tenant")
			var e *Error
			if err := l.Allow(in("b", "acme")); !errors.As(err, &e) || e.Limit != 3 || !strings.Contains(err.Error(), "tenant limit of 3 per 1m0s") {
				t.Errorf("%v", err)
			}
			step("another tenant", in("a", "other"), 1, "")
			step("user a has had four, and the refused one charged nobody", in("a", "third"), 1, "")
			step("user a is at its limit", in("a", "third"), 1, ScopeUser)
			step("no tenant, on a route", WithUser(routed, "c"), 3, "")
			step("above the route", WithUser(routed, "d"), 2, "route")
			step("up to the global limit", in("d", "third"), 1, "")
			step("the longest wait is told", tenant(WithUser(routed, "d"), "third"), 2, "route")
			step("above the global limit", in("d", "fourth"), 2, ScopeGlobal)
			step("work for everybody meets no rule", WithoutUser(in("", "acme")), 1, ScopeGlobal)
			if d, err := l.Info(in("", "acme"), "e"); err != nil || d.Scope != ScopeUser || d.Allowed || d.Remaining != 5 || d.RetryAfter <= 0 {
				t.Errorf("info of a user whose tenant is at its limit: %+v, %v", d, err)
			}
			if err := l.AllowN(in("e", "acme"), 4); !errors.Is(err, ErrCost) {
				t.Errorf("a cost above a rule: %v", err)
			}
			if got := l.Stats().RefusedRules; got["tenant"] != 2 || got["route"] != 2 {
				t.Errorf("%v", got)
			}
		})
	}
}

// A brute-force oracle for any number of limits at once, on every store, with
// costs and keys at random.
func TestL01RulesAgreeWithOracle(t *testing.T) {
	t.Parallel()
	for name, shared := range map[string]bool{"memory": false, "redis": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(5, 8))
			cfg := Config{
				PerUser: Per(9, 1000*time.Second), Global: Per(30, 1500*time.Second), Lease: Lease{Max: 1},
				Rules: []Rule{
					{Name: "tenant", Key: tenantOf, Rate: Per(12, 700*time.Second)},
					{Name: "first", Key: func(ctx context.Context) string { return tenantOf(ctx)[:1] }, Rate: Per(20, 1300*time.Second)},
				},
			}
			now := int64(1e15)
			clock := func() int64 { return now }
			var instances []*Limiter
			set := func() {}
			if shared {
				server := newClockedRedis(t)
				set = func() { server.set(now / 1000) }
				cfg = onRedis(t, cfg)
				instances = []*Limiter{server.limiter(cfg, clock), server.limiter(cfg, clock)}
			} else {
				instances = []*Limiter{testLimiter(t, cfg, clock)}
			}
			oracles := map[string]*oracle{}
			of := func(kind, key string, l Limit) *oracle {
				o := oracles[kind+key]
				if o == nil {
					o = &oracle{rate: rate{l.Max, int64(l.Window)}}
					oracles[kind+key] = o
				}
				return o
			}
			admitted, refusedBy := 0, map[Scope]int{}
			for i := range 1500 {
				now += int64(r.ExpFloat64()*25) * slow
				if i%97 == 0 {
					now += r.Int64N(1600) * slow
				}
				set()
				user, ten, cost := fmt.Sprint(r.IntN(4)), []string{"acme", "axis", "other"}[r.IntN(3)], 1+r.IntN(3)
				who := []*oracle{
					of("u", user, cfg.PerUser), of("t", ten, cfg.Rules[0].Rate), of("f", ten[:1], cfg.Rules[1].Rate), of("g", "", cfg.Global),
				}
				wait := int64(0)
				for _, o := range who {
					wait = max(wait, o.wait(now, cost))
				}
				l := instances[r.IntN(len(instances))]
				remembered := l.Stats().Remembered
				d, err := l.Decide(tenant(as(user), ten), cost)
				if err != nil {
					t.Fatal(err)
				}
				if told := int64(d.RetryAfter); d.Allowed != (wait == 0) || told != wait && (told > wait || l.Stats().Remembered == remembered) {
					t.Fatalf("request %d of %s, %s, cost %d: %+v, the oracle says wait %v", i, user, ten, cost, d, time.Duration(wait))
				}
				if !d.Allowed {
					refusedBy[d.Scope]++
					continue
				}
				admitted++
				for _, o := range who {
					for range cost {
						o.at = append(o.at, now)
					}
				}
			}
			if len(refusedBy) != 4 || admitted < 100 {
				t.Errorf("%d admitted, refused by %v: not all was tested", admitted, refusedBy)
			}
		})
	}
}

func TestL06HostileKeysOfRulesAreApartAndHashed(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1000)
	keys := []string{
		"a", "a ", "{a}", "}{", "a:b", long, long + "y", "#" + digest(long, 16), "#", "\x00", "\xff", "g", "log:g", "\n",
	}
	for name, redis := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := redis(Config{Rules: []Rule{{Name: "k", Key: tenantOf, Rate: PerMinute(1)}}, Global: PerMinute(1000), Lease: Lease{Max: 1}})
			l := testLimiter(t, cfg, monotonic)
			for i := range 2 {
				for _, key := range keys {
					if err := l.Allow(tenant(t.Context(), key)); (err == nil) != (i == 0) {
						t.Errorf("%.20q, request %d: %v", key, i, err)
					}
				}
			}
			if cfg.Redis == nil {
				return
			}
			found, err := cfg.Redis.Keys(t.Context(), "{limits:"+cfg.Name+"}*").Result()
			if err != nil || len(found) != len(keys)+1 {
				t.Errorf("%d keys in Redis, want %d: %v", len(found), len(keys)+1, err)
			}
			for _, k := range found {
				if len(k) > 150 || strings.ContainsAny(strings.TrimPrefix(k, "{limits:"+cfg.Name+"}"), "{} \n\x00") {
					t.Errorf("key %q", k)
				}
			}
		})
	}
}

func rulesByTable(t *testing.T, b *bench) {
	db, p := b.limited(t, Config{Rules: []Rule{{Name: "table", KeyOf: ByTable, Rate: PerMinute(2)}}}, nil)
	count := func(table string) error { var n int64; return db.Table(table).Count(&n).Error }
	for i := range 3 {
		if err := count("owners"); (err == nil) != (i < 2) {
			t.Errorf("statement %d: %v", i, err)
		}
	}
	var e *Error
	if err := db.Create(&owner{Name: "too many"}).Error; !errors.As(err, &e) || e.Scope != "table" {
		t.Errorf("a write to the same table: %v", err)
	}
	for range 2 {
		if err := count("pets"); err != nil {
			t.Error(err)
		}
	}
	// What is no statement does not meet it.
	for range 5 {
		if err := p.Limiter().Allow(as("a")); err != nil {
			t.Error(err)
		}
	}
}

func changedUnderStatements(t *testing.T, b *bench) {
	db, p := b.limited(t, Config{}, nil)
	find := func() error { return db.WithContext(as("a")).Find(&[]owner{}).Error }
	for range 3 {
		if err := find(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.SetLimits(PerMinute(1), Limit{}); err != nil {
		t.Fatal(err)
	}
	if err := find(); err != nil {
		t.Error(err)
	}
	wantLimited(t, "after the change", find())
	wantLimited(t, "a write after the change", db.WithContext(as("a")).Create(&owner{Name: "x"}).Error)
	if err := p.SetLimits(Limit{}, Limit{}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := find(); err != nil {
			t.Error(err)
		}
	}
}

func inShadow(t *testing.T, b *bench) {
	db, p := b.limited(t, Config{PerUser: PerMinute(1), Shadow: true}, nil)
	ctx, s, _ := scope.Begin(as("a"), "test")
	defer s.End()
	for range 4 {
		if err := db.WithContext(ctx).Find(&[]owner{}).Error; err != nil {
			t.Error(err)
		}
	}
	if st := p.Stats(); st.Admitted != 4 || st.RefusedUser != 0 || !maps.Equal(st.Shadowed, map[string]uint64{"user": 3, "global": 0, "unavailable": 0}) {
		t.Errorf("%+v", st)
	}
	if d, ok := LastDecision(s); ok {
		t.Errorf("clients would be told %+v", d)
	}
}

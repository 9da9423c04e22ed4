package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/examples/internal/steps"
)

// visit is the scripted client. Each step shows one thing and fails when it did
// not happen.
type visit struct {
	ctx     context.Context
	base    string
	plugin  *infra.Plugin
	reports *reports
}

func (v visit) all() error {
	return steps.Run(
		steps.Step{Title: "A cached read: memory against the database", Run: v.cache},
		steps.Step{Title: "A write empties what it changed", Run: v.invalidation},
		steps.Step{Title: "A loop that queries, found", Run: v.nPlusOne},
		steps.Step{Title: "A slow query, with its plan", Run: v.slow},
		steps.Step{Title: "A user who asks too much", Run: v.limit},
		steps.Step{Title: "Where the statements went", Run: v.where},
		steps.Step{Title: "What a scrape of /metrics sees", Run: v.metrics},
	)
}

// reply is an answer of the shop, with the time that it took.
type reply struct {
	status int
	header http.Header
	body   string
	took   time.Duration
}

func (v visit) do(method, path, user string) (reply, error) {
	req, err := http.NewRequestWithContext(v.ctx, method, v.base+path, nil)
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("X-User", user)
	start := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, strings.TrimSpace(string(body)), time.Since(start)}, err
}

// ok is do for an answer that must be a 200.
func (v visit) ok(method, path, user string) (reply, error) {
	r, err := v.do(method, path, user)
	if err == nil && r.status != http.StatusOK {
		err = fmt.Errorf("%s %s answered %d: %s", method, path, r.status, r.body)
	}
	return r, err
}

// cache reads twenty products twice. The database times are those of the shop's
// statements, as the Server-Timing header gives them.
func (v visit) cache() error {
	var miss, hit []time.Duration
	for id := range 20 {
		for _, want := range []string{"miss", "hit"} {
			r, err := v.ok("GET", fmt.Sprint("/products/", id+1), "ann")
			if err != nil {
				return err
			}
			if got := r.header.Get(infra.HeaderCache); got != want {
				return fmt.Errorf("product %d: %s is %q, want %q", id+1, infra.HeaderCache, got, want)
			}
			d, err := statementTime(r.header)
			if err != nil {
				return err
			}
			if want == "hit" {
				hit = append(hit, d)
			} else {
				miss = append(miss, d)
			}
		}
	}
	m, h := median(miss), median(hit)
	fmt.Printf("   20 products, each read twice: 20 misses, 20 hits\n")
	fmt.Printf("   median time of the statement: miss %v, hit %v\n", m, h)
	return nil
}

func (v visit) invalidation() error {
	before, err := v.ok("GET", "/products/7", "ann")
	if err != nil {
		return err
	}
	if _, err := v.ok("POST", "/products/7/price/4711", "bob"); err != nil {
		return err
	}
	after, err := v.ok("GET", "/products/7", "ann")
	if err != nil {
		return err
	}
	fmt.Printf("   GET  /products/7             %-5s %s\n", before.header.Get(infra.HeaderCache), before.body)
	fmt.Printf("   POST /products/7/price/4711\n")
	fmt.Printf("   GET  /products/7             %-5s %s\n", after.header.Get(infra.HeaderCache), after.body)
	if before.header.Get(infra.HeaderCache) != "hit" || after.header.Get(infra.HeaderCache) != "miss" || !strings.Contains(after.body, "4711") {
		return errors.New("the write was not seen at once")
	}
	return nil
}

func (v visit) limit() error {
	for n := 1; ; n++ {
		r, err := v.do("GET", fmt.Sprintf("/products/%d", 1000+n), "greedy") // a new product each time: not cached
		if err != nil {
			return err
		}
		if r.status == http.StatusOK && n <= 100 {
			continue
		}
		if r.status != http.StatusTooManyRequests || r.header.Get("Retry-After") == "" {
			return fmt.Errorf("request %d answered %d, want a 429 that says when to retry", n, r.status)
		}
		fmt.Printf("   request %d of \"greedy\": %d, retry after %s s (limit %s, remaining %s, reset %s)\n", n, r.status,
			r.header.Get("Retry-After"), r.header.Get("X-RateLimit-Limit"), r.header.Get("X-RateLimit-Remaining"), r.header.Get("X-RateLimit-Reset"))
		fmt.Printf("   %s\n", r.body)
		break
	}
	if _, err := v.ok("GET", "/products/2999", "ann"); err != nil {
		return fmt.Errorf("another user is not affected: %w", err)
	}
	fmt.Printf("   \"ann\" is served as before\n")
	return nil
}

// statementTime is what the shop says its statements took.
func statementTime(h http.Header) (time.Duration, error) {
	var ms float64
	if _, err := fmt.Sscanf(h.Get("Server-Timing"), "db;dur=%f", &ms); err != nil {
		return 0, fmt.Errorf("Server-Timing is %q: %w", h.Get("Server-Timing"), err)
	}
	return time.Duration(ms * float64(time.Millisecond)), nil
}

func median(ds []time.Duration) time.Duration {
	slices.Sort(ds)
	return ds[len(ds)/2]
}

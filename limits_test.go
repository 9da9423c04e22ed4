package infra_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/internal/testbed"
	"github.com/gorminfra/infra/limithook"
	"github.com/gorminfra/infra/metrics"
)

func TestL07ADeadlineOfTheProgramIsNotAnsweredAsSuccess(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	cfg := limited(infra.Config{Redis: newRedisClient(t, testbed.SharedRedis(t))}, 1000)
	cfg.Limits.Name = s.name
	cfg.HTTP.Requests.PerUser = limithook.PerMinute(10)
	p := use(t, s.open(t), cfg)
	limits := p.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") }))
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithDeadline(r.Context(), time.Now().Add(-time.Second))
		defer cancel()
		limits.ServeHTTP(w, r.WithContext(ctx))
	}))
	if resp, _ := get(t, url, "ann"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the limit of requests was not asked in time: %d, want 503", resp.StatusCode)
	}
}

func TestL07RequestLimitIsWhatClientsAreToldAndMetered(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	reg := prometheus.NewPedanticRegistry()
	cfg := limited(infra.Config{Name: s.name, Metrics: metrics.Config{Registerer: reg}}, 5)
	cfg.HTTP.Requests.PerUser = limithook.PerMinute(8)
	p := use(t, db, cfg)
	url := serve(t, p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/none" {
			return
		}
		if err := db.WithContext(r.Context()).First(&Product{}, 1).Error; !infra.WriteLimited(w, r, err) {
			check(t, err)
		}
	})))
	for i, c := range []struct {
		path             string
		status           int
		limit, remaining string
	}{
		{"/one", 200, "8", "7"},
		{"/none", 200, "8", "6"},
		{"/one", 200, "8", "5"},
		{"/one", 200, "8", "4"},
		{"/one", 200, "8", "3"},
		{"/one", 200, "8", "2"},
		{"/one", 429, "5", "0"}, // by the statement: that limit is told
		{"/none", 200, "8", "0"},
		{"/none", 429, "8", "0"},
	} {
		resp, _ := get(t, url+c.path, "ann")
		limit, remaining := resp.Header.Get("X-RateLimit-Limit"), resp.Header.Get("X-RateLimit-Remaining")
		if resp.StatusCode != c.status || limit != c.limit || remaining != c.remaining {
			t.Errorf("request %d: %d, %s of %s, want %+v", i+1, resp.StatusCode, remaining, limit, c)
		}
	}
	const help = "# HELP infra_%LIMIT_refused_total %WHAT refused, by limit: user, global, the name of a rule, or unavailable when it could not be asked.\n" +
		"# TYPE infra_%LIMIT_refused_total counter\n"
	for limit, what := range map[string]string{"limit": "Statements", "request_limit": "Requests"} {
		want := help
		for scope, n := range map[string]string{"global": "0", "unavailable": "0", "user": "1"} {
			want += `infra_%LIMIT_refused_total{db="` + s.name + `",scope="` + scope + `"} ` + n + "\n"
		}
		want = strings.NewReplacer("%LIMIT", limit, "%WHAT", what).Replace(want)
		check(t, testutil.GatherAndCompare(reg, strings.NewReader(want), "infra_"+limit+"_refused_total"))
	}
}

// wrapped is a writer of a program's own middleware.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestL07RefusalIsNotWrittenIntoAnAnswerUnderWay(t *testing.T) {
	t.Parallel()
	s := newShop(t, testbed.SharedCluster(t))
	db := s.open(t)
	p := use(t, db, limited(infra.Config{}, 1))
	answered := make(chan bool, 1)
	url := serve(t, p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wrapped" {
			w = wrapped{w}
		}
		for range 3 {
			err := db.WithContext(r.Context()).First(&Product{}, 1).Error
			if infra.WriteLimited(w, r, err) {
				answered <- true
				return
			}
			check(t, err)
			_, err = io.WriteString(w, "row\n")
			check(t, err)
		}
		answered <- false
	})))
	for _, path := range []string{"/plain", "/wrapped"} {
		resp, body := get(t, url+path, path)
		if resp.StatusCode != http.StatusOK || body != "row\n" {
			t.Errorf("%s: %d %q", path, resp.StatusCode, body)
		}
		if !<-answered {
			t.Errorf("%s: the handler was not told of the refusal", path)
		}
	}
}

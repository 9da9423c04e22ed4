package resolver

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// jar keeps cookies as a browser does.
type jar map[string]string

// open begins a request of the client; the returned function ends it, and gives the
// client the answer's cookies.
func (j jar) open(g *rig) (ctx context.Context, answer func()) {
	g.t.Helper()
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	for name, value := range j {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	ctx = g.r.ReadToken(inScope(deadline(g.t), "request"), req)
	return ctx, func() {
		g.t.Helper()
		h := http.Header{}
		g.r.WriteToken(ctx, h)
		for _, c := range (&http.Response{Header: h}).Cookies() {
			j[c.Name] = c.Value
		}
	}
}

// A page reads while it writes, and the read's answer comes last.
func TestR05AnOverlappingReadDoesNotHideAWrite(t *testing.T) {
	t.Parallel()
	g, _ := lagging(t)
	cfg := g.r.given
	cfg.Session.Key = keyA
	g.close()
	g.open(cfg)
	g.allInUse()
	ctx := deadline(t)
	g.pauseProven(ctx)
	client := jar{}
	for n := int64(1); n < 4; n++ {
		reading, readAnswers := client.open(g)
		// The first and the last are told to go to a replica by no token, and by none of
		// a write that it has.
		if w := g.read(reading, 1); n == 1 && !w.Standby {
			t.Fatal("the replica is not read: the test shows nothing")
		}
		writing, writeAnswers := client.open(g)
		must(t, setN(g.db.WithContext(writing), n))
		writeAnswers()
		readAnswers()
		next, answer := client.open(g)
		if w := g.read(next, 1); w.N != n {
			t.Errorf("the client reads %d after it wrote %d", w.N, n)
		}
		answer()
	}
	// What the write's token said is in the other one by now, and goes with it.
	g.goOn(ctx)
	eventually(t, "a replica to serve the client", func() bool {
		next, answer := client.open(g)
		defer answer()
		return g.read(next, 1).Standby
	})
	before := client.clone()
	next, answer := client.open(g)
	g.read(next, 1)
	answer()
	for name, value := range client {
		if before[name] != value {
			t.Errorf("%s is set anew where there is no news", name)
		}
	}
}

func (j jar) clone() jar {
	return maps.Clone(j)
}

// A token that means the primary is got rid of by the next answer, though a reader
// does not touch what a writer has set.
func TestR05ATokenThatMeansThePrimaryIsReplaced(t *testing.T) {
	t.Parallel()
	g, _ := lagging(t)
	cfg := g.r.given
	cfg.Session.Key = keyA
	g.close()
	g.open(cfg)
	g.allInUse()
	for name, text := range map[string]string{
		"forged":      aToken().encode(keyB),
		"no position": token{primary: true, expires: 1 << 40}.encode(keyA),
		"superseded": token{
			system: g.r.primary().identity.system, timeline: g.r.timelineID + 1, lsn: 1, expires: 1 << 40,
		}.encode(keyA),
	} {
		for _, cookie := range []string{defaultTokenName, defaultTokenName + readSuffix} {
			client := jar{cookie: text}
			first, answer := client.open(g)
			if w := g.read(first, 1); w.Standby {
				t.Errorf("%s in %s: a replica is read", name, cookie)
			}
			answer()
			eventually(t, "a replica to serve the client", func() bool {
				next, answer := client.open(g)
				defer answer()
				return g.read(next, 1).Standby
			})
		}
	}
}

func TestR05ARequestWithTooManyTokensIsSentToThePrimary(t *testing.T) {
	t.Parallel()
	g := newRig(t, testbed.SharedCluster(t), func(cfg *Config) { cfg.Session.Key = keyA; cfg.MaxLag = time.Hour })
	g.allInUse()
	token := ""
	eventually(t, "a read of a replica", func() (standby bool) {
		token, _ = g.request("", nil, func(ctx context.Context) { standby = g.read(ctx, 1).Standby })
		return standby
	})
	for n, standby := range map[int]bool{maxBrought: true, maxBrought + 1: false} {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		for range n {
			req.AddCookie(&http.Cookie{Name: defaultTokenName + readSuffix, Value: token})
			req.Header.Add("X-Infra-Token", token)
		}
		for _, header := range []bool{false, true} {
			cfg := &g.r.cfg.Session // of this test alone, and read by nobody meanwhile
			cfg.Header, cfg.Name = header, defaultTokenName
			if header {
				cfg.Name = "X-Infra-Token"
			}
			ctx := g.r.ReadToken(inScope(deadline(t), "request"), req)
			if w := g.read(ctx, 1); w.Standby != standby {
				t.Errorf("%d tokens, in headers %v: on a replica %v", n, header, w.Standby)
			}
		}
	}
}

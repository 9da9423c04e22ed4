package limithook

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func request(remote string, forwarded ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = remote
	for _, f := range forwarded {
		r.Header.Add("X-Forwarded-For", f)
	}
	return r
}

func TestClientBehindTrustedProxies(t *testing.T) {
	t.Parallel()
	behind := ByClient(netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"))
	for name, c := range map[string]struct {
		r    *http.Request
		want string
	}{
		"direct":                                     {request("203.0.113.7:4711"), "203.0.113.7"},
		"direct, claiming to be another":             {request("203.0.113.7:4711", "198.51.100.1"), "203.0.113.7"},
		"one proxy":                                  {request("10.0.0.1:80", "203.0.113.7"), "203.0.113.7"},
		"one proxy, and a claim to its left":         {request("10.0.0.1:80", "198.51.100.1, 203.0.113.7"), "203.0.113.7"},
		"two proxies":                                {request("10.0.0.1:80", "198.51.100.1,203.0.113.7, 10.9.9.9"), "203.0.113.7"},
		"in several fields":                          {request("10.0.0.1:80", "198.51.100.1", "203.0.113.7", "10.2.2.2 ,10.3.3.3"), "203.0.113.7"},
		"a client that pretends to be a proxy":       {request("10.0.0.1:80", "10.1.1.1, 203.0.113.7"), "203.0.113.7"},
		"all are proxies":                            {request("10.0.0.1:80", "10.1.1.1, 10.2.2.2"), "10.1.1.1"},
		"a proxy that tells nothing":                 {request("10.0.0.1:80"), "10.0.0.1"},
		"an empty field":                             {request("10.0.0.1:80", ""), "10.0.0.1"},
		"nonsense":                                   {request("10.0.0.1:80", "203.0.113.7, \x00{}"), "10.0.0.1"},
		"nonsense left of a proxy":                   {request("10.0.0.1:80", "203.0.113.7, unknown, 10.2.2.2"), "10.2.2.2"},
		"a huge field":                               {request("10.0.0.1:80", strings.Repeat("9", 1<<20)), "10.0.0.1"},
		"a million commas":                           {request("10.0.0.1:80", strings.Repeat(",", 1<<20)), "10.0.0.1"},
		"with a port":                                {request("10.0.0.1:80", "203.0.113.7:1234"), "203.0.113.7"},
		"IPv6: its network":                          {request("[2001:db8:1:2:3:4:5:6]:80"), "2001:db8:1:2::/64"},
		"IPv6 behind a proxy, with a port":           {request("[fd00::1]:80", "[2001:db8:1:2::9]:443"), "2001:db8:1:2::/64"},
		"IPv6 behind a proxy, in brackets":           {request("[fd00::1]:80", "[2001:db8:1:2::9]"), "2001:db8:1:2::/64"},
		"IPv4 in IPv6 is the same client":            {request("[::ffff:203.0.113.7]:80"), "203.0.113.7"},
		"IPv4 in IPv6 is the same proxy":             {request("[::ffff:10.0.0.1]:80", "203.0.113.7"), "203.0.113.7"},
		"a zone is no part of the address":           {request("[fe80::1%eth0]:80"), "fe80::/64"},
		"a unix socket":                              {request("@", "203.0.113.7"), "203.0.113.7"},
		"a unix socket of which nothing is known":    {request("@"), ""},
		"a unix socket and nonsense":                 {request("", "x"), ""},
		"no proxy is trusted though it says so much": {request("192.0.2.1:80", "10.0.0.1"), "192.0.2.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := behind(c.r); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	if got := ByClient()(request("10.0.0.1:80", "203.0.113.7")); got != "10.0.0.1" {
		t.Errorf("without trusted proxies: %q", got)
	}
}

type named struct{ string }

func (n named) String() string { return n.string }

func TestIdentityFromHeaderContextOrTheFirstThatKnows(t *testing.T) {
	t.Parallel()
	type key struct{}
	r := request("203.0.113.7:80")
	r.Header.Set("X-Api-Key", " k-17 ")
	with := func(v any) *http.Request { return r.WithContext(context.WithValue(r.Context(), key{}, v)) }
	for name, c := range map[string]struct {
		identity func(*http.Request) string
		r        *http.Request
		want     string
	}{
		"header":            {ByHeader("X-API-Key"), r, "k-17"},
		"no header":         {ByHeader("X-Other"), r, ""},
		"context":           {ByContext(key{}), with("ann"), "ann"},
		"context, stringer": {ByContext(key{}), with(named{"bob"}), "bob"},
		"context, number":   {ByContext(key{}), with(uint64(17)), "17"},
		"context, other":    {ByContext(key{}), with([]byte("x")), ""},
		"context, nothing":  {ByContext(key{}), r, ""},
		"first":             {FirstOf(ByContext(key{}), ByHeader("X-Api-Key"), ByClient()), r, "k-17"},
		"last":              {FirstOf(ByContext(key{}), ByHeader("X-Other"), ByClient()), r, "203.0.113.7"},
		"nobody":            {FirstOf(ByHeader("X-Other")), r, ""},
	} {
		if got := c.identity(c.r); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Whatever a client writes into X-Forwarded-For, it comes to an address or to
// nothing, and never to one that it chose itself.
func FuzzByClient(f *testing.F) {
	for _, s := range []string{"203.0.113.7", "a, b", "[::1]:1, 10.0.0.1", ",,,", "10.0.0.1,"} {
		f.Add(s)
	}
	identity := ByClient(netip.MustParsePrefix("10.0.0.0/8"))
	f.Fuzz(func(t *testing.T, claim string) {
		if got := identity(request("10.0.0.1:80", claim+", 203.0.113.7")); got != "203.0.113.7" {
			t.Errorf("%q becomes %q", claim, got)
		}
		if got := identity(request("10.0.0.1:80", claim)); got != "" && len(got) > 45 {
			t.Errorf("%q becomes %q", claim, got)
		}
	})
}

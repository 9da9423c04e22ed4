package resolver

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/internal/testbed"
)

// linesOf are the lines of a log about a node.
func linesOf(out *safeBuffer, node string) []string {
	return slices.DeleteFunc(strings.Split(out.String(), "\n"), func(l string) bool { return !strings.Contains(l+" ", "node="+node+" ") })
}

func TestLogSaysWhatANodeIs(t *testing.T) {
	t.Parallel()
	var out safeBuffer
	c := testbed.SharedCluster(t)
	other := c.NewDatabase(t)
	const secret = "topsecret"
	g := newRig(t, c, func(cfg *Config) {
		good := cfg.Replicas[0].DSN
		with := func(old, repl string) string {
			return strings.Replace(strings.Replace(good, "postgres@", "postgres:"+secret+"@", 1), old, repl, 1)
		}
		cfg.Replicas = []Node{
			{Name: "good", DSN: good},
			{Name: "leader", DSN: with(c.Replica(0).Addr(), c.Primary().Addr())},
			{Name: "elsewhere", DSN: c.Replica(0).DSN(other)},
			{Name: "nothing", DSN: strings.Replace(testbed.DSN(c.Replica(0).Addr(), "no_such_database"), "postgres@", "postgres:"+secret+"@", 1)},
			{Name: "nowhere", DSN: with(c.Replica(0).Addr(), "no..such..host:5432")},
			{Name: "closed", DSN: with(c.Replica(0).Addr(), "127.0.0.1:1")},
			{Name: "garbled", Dialector: postgres.Open("host=h password=my " + secret)},
		}
		cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
		cfg.Probe.Interval = 20 * time.Millisecond
	})
	eventually(t, "more probes", func() bool { return g.node("leader").Probes > 5 && g.node("closed").ProbeErrors > 5 })
	must(t, g.r.Close())
	for node, want := range map[string]string{
		"good":      `msg="resolver: node is in rotation"`,
		"leader":    `msg="resolver: node is not used" db=default node=leader why="is a primary, not a standby"`,
		"elsewhere": `msg="resolver: node is not used" db=default node=elsewhere why="other database"`,
		"nothing":   `node=nothing why="error of the server" error="failed to connect to ` + "`user=postgres database=no_such_database`",
		"nowhere":   `node=nowhere why="host name not resolved" error="failed to connect to `,
		"closed":    `node=closed why="connection refused" error="failed to connect to `,
		"garbled":   `why="connection string not readable" error="the connection string is not readable (failed to parse as keyword/value: invalid keyword/value)"`,
	} {
		if lines := linesOf(&out, node); len(lines) != 1 || !strings.Contains(lines[0], want) {
			t.Errorf("%s:\n%s\nwant one line with %s", node, strings.Join(lines, "\n"), want)
		}
	}
	if strings.Contains(out.String(), secret) {
		t.Error("the log reveals a password")
	}
	for _, n := range g.r.Nodes() {
		if strings.Contains(n.LastError, secret) {
			t.Errorf("%s: LastError reveals a password", n.Name)
		}
	}
}

// A replica is not praised before the primary has told whether they belong
// together, and is told of again when it comes back as the wrong thing.
func TestLogWaitsForThePrimary(t *testing.T) {
	t.Parallel()
	var out safeBuffer
	c := newClocked(Config{})
	c.cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
	c.replicas()[0].name, c.replicas()[1].name = "a", "b"
	answer := func(database uint32) {
		c.at++
		c.took(c.replicas()[0], identity{database: database}, reading{placed: true, standby: true, lsn: 1, timeline: 1}, c.at)
	}
	answer(2)
	if lines := linesOf(&out, "a"); len(lines) != 0 {
		t.Errorf("before the primary has answered: %v", lines)
	}
	c.took(c.primary(), identity{database: 1}, reading{placed: true, lsn: 1, timeline: 1}, c.at)
	c.suspect(c.replicas()[0], refused, errors.New("gone"), true)
	answer(2)
	answer(2)
	answer(1)
	want := []string{"not used", "out of rotation", "not used", "in rotation"}
	lines := linesOf(&out, "a")
	for i, l := range lines {
		if i >= len(want) || !strings.Contains(l, "node is "+want[i]) {
			t.Errorf("line %d: %s", i, l)
		}
	}
	if len(lines) != len(want) {
		t.Errorf("%d lines, want %d", len(lines), len(want))
	}
}

func TestLogWarnsOfBoundsThatNoReplicaCanKeep(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cfg  Config
		want string // empty: nothing is said
	}{
		"all of them": {Config{
			Replicas: DSNs("host=127.0.0.1 port=1"), MaxLag: 400 * time.Millisecond,
			Groups:     []Group{{Name: "a", MaxLag: time.Second}, {Name: "b", MaxLag: time.Millisecond}},
			Priorities: Priorities{Critical: Class{MaxLag: 100 * time.Millisecond}},
		}, `fields="[MaxLag Groups[1].MaxLag Priorities.Critical.MaxLag]" interval=250ms`},
		"probed often enough": {Config{
			Replicas: DSNs("host=127.0.0.1 port=1"), MaxLag: 400 * time.Millisecond, Probe: Probe{Interval: 200 * time.Millisecond},
		}, ""},
		"no replicas": {Config{MaxLag: time.Millisecond}, ""},
	} {
		var out safeBuffer
		tt.cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
		db, err := gorm.Open(postgres.Open("host=127.0.0.1 port=1 dbname=none"), &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true})
		must(t, err)
		must(t, use(t, db, New(tt.cfg)).Close())
		if pool, err := db.DB(); err == nil {
			_ = pool.Close()
		}
		const said = "below two probe intervals"
		if text := out.String(); strings.Contains(text, said) != (tt.want != "") || !strings.Contains(text, tt.want) {
			t.Errorf("%s: the log says %s", name, text)
		}
	}
}

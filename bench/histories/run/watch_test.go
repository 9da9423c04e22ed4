package run

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorminfra/infra/internal/testbed"
)

// spoken is a server that says one word after the other, one a second from its
// start; an empty word is no answer.
func spoken(name string, words ...string) Watched {
	began := time.Now()
	return Watched{Name: name, Look: func(context.Context) (string, error) {
		word := words[min(int(time.Since(began)/time.Second), len(words)-1)]
		if word == "" {
			return "", errors.New("no answer")
		}
		return word, nil
	}}
}

func TestWatchNotesChangesAndBetweenWhichLooksTheyHappened(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		words []string
		want  string
	}{
		{"none", []string{"primary"}, ""},
		{"one", []string{"standby", "standby", "primary"}, "node standby>primary 1.9s 2s"},
		{"there and back", []string{"a", "b", "a"}, "node a>b 900ms 1s; node b>a 1.9s 2s"},
		{"no answer is no change", []string{"a", "", "a"}, ""},
		{"a change while it gave no answer", []string{"a", "", "", "b"}, "node a>b 900ms 3s"},
		{"what it says first is no change", []string{"", "a"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				w := StartWatch(100*time.Millisecond, func() int64 { return int64(time.Since(began)) }, spoken("node", tc.words...), spoken("other", "same"))
				time.Sleep(5 * time.Second) //nolint:forbidigo // the clock is a fake
				var got []string
				for _, c := range w.Stop() {
					got = append(got, strings.Join([]string{c.Name, c.Was + ">" + c.Is, millis(c.From), millis(c.To)}, " "))
				}
				if strings.Join(got, "; ") != tc.want {
					t.Errorf("noted %q, want %q", got, tc.want)
				}
				w.Stop()
			})
		})
	}
}

func millis(ns int64) string { return time.Duration(ns).Truncate(time.Millisecond).String() }

// A server that hangs must not hold the others' watch, nor the end.
func TestWatchOutlastsAServerThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		hangs := Watched{Name: "frozen", Look: func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }}
		w := StartWatch(100*time.Millisecond, func() int64 { return int64(time.Since(began)) }, hangs, spoken("node", "a", "b"))
		time.Sleep(2 * time.Second) //nolint:forbidigo // the clock is a fake
		if changes := w.Stop(); len(changes) != 1 || changes[0].Name != "node" {
			t.Errorf("noted %v", changes)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("it was stopped after %v", took)
		}
	})
}

func TestChangeOutsideItsFaultsIsToldOf(t *testing.T) {
	t.Parallel()
	happened := Happened{"promote": {{From: 100, To: 200}, {From: 500, To: 600}}, "pause": {{From: 300, To: 400}}}
	for _, tc := range []struct {
		name     string
		from, to int64
		asked    bool
	}{
		{"within a fault", 120, 130, true},
		{"seen as it ended", 190, 210, true},
		{"begun before it", 90, 110, true},
		{"before it", 80, 99, false},
		{"after it", 201, 210, false},
		{"within one that does not do it", 320, 330, false},
		{"within the second", 510, 520, true},
	} {
		noProof := Unasked([]Change{{"node1", "standby", "primary", Span{From: tc.from, To: tc.to}}}, happened, "promote", "crash")
		if tc.asked != (len(noProof) == 0) {
			t.Errorf("%s: does not count: %q", tc.name, noProof)
		}
		if !tc.asked && (!strings.Contains(noProof[0], "node1") || !strings.Contains(noProof[0], `"standby"`) || !strings.Contains(noProof[0], `"primary"`)) {
			t.Errorf("%s: it says %q", tc.name, noProof)
		}
	}
}

// A promotion and a start are seen on the real server; that sessions end, that
// replay stands still and that the server is frozen are none.
func TestWatchSeesWhatBecomesOfAPostgres(t *testing.T) {
	t.Parallel()
	testbed.RequirePostgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster, err := testbed.StartCluster(ctx, testbed.ClusterConfig{Replicas: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	primary, replica := cluster.Primary(), cluster.Replica(0)
	began := time.Now()
	now := func() int64 { return int64(time.Since(began)) }
	watch := func(do func() error) (changes []Change) {
		servers := Postgres(primary, replica)
		answers := make([]chan struct{}, len(servers))
		for i, s := range servers {
			answers[i] = make(chan struct{})
			servers[i].Look = func(ctx context.Context) (string, error) {
				says, err := s.Look(ctx)
				if err == nil {
					select {
					case answers[i] <- struct{}{}:
					default: // nobody waits
					}
				}
				return says, err
			}
		}
		w := StartWatch(10*time.Millisecond, now, servers...)
		defer w.Stop()
		everybodyAnswers := func() {
			for range 2 { // the first may have been sent before
				for _, answer := range answers {
					select {
					case <-answer:
					case <-ctx.Done():
						t.Fatal("a server gives no answer")
					}
				}
			}
		}
		everybodyAnswers()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		everybodyAnswers()
		return w.Stop()
	}
	changes := watch(func() error {
		kill := "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
		return errors.Join(replica.PauseReplay(ctx), replica.ResumeReplay(ctx), replica.Freeze(), replica.Thaw(),
			replica.Exec(ctx, "", kill), primary.Exec(ctx, "", kill))
	})
	if len(changes) > 0 {
		t.Errorf("noted %v of servers that were as before", changes)
	}
	changes = watch(func() error { return errors.Join(replica.StopImmediate(), replica.Start(ctx)) })
	if len(changes) != 1 || changes[0].Name != replica.Name() {
		t.Errorf("noted %v, want the start of the replica", changes)
	}
	changes = watch(func() error { return replica.Promote(ctx) })
	if len(changes) != 1 || !strings.HasPrefix(changes[0].Was, "standby") || !strings.HasPrefix(changes[0].Is, "primary of timeline 00000002") {
		t.Errorf("noted %v, want the promotion", changes)
	}
}

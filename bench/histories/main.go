// Command histories proves what the plugin promises on histories of real work:
//
//	go run -C bench ./histories -area routing [-ops N] [-seed S] [-faults LIST] [-json]
//
// It starts a Postgres cluster and several processes of a program that uses the
// plugin, lets them write and read at random while servers are paused, cut off,
// killed, frozen and promoted, and checks what they saw: a session reads its own
// writes and never goes back, no acknowledged write is lost, none happens twice,
// and no read is older than it may be.
//
// It exits with 1 when a promise was broken, and with 2 when the run shows
// nothing: too few reads came from replicas, a fault met no traffic, or it could
// not run to its end.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"time"
)

const (
	exitViolation = 1
	exitNoProof   = 2
)

// settings of a run.
type settings struct {
	ops      int64
	seed     uint64
	faults   []fault
	limit    time.Duration
	workers  int
	sessions int
	replicas int
	keep     string
}

func main() {
	if text := os.Getenv(workerEnv); text != "" {
		if err := runWorker(text); err != nil {
			fmt.Fprintln(os.Stderr, "histories: worker:", err)
			os.Exit(1)
		}
		return
	}
	s, asJSON, err := parse(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "histories:", err)
		}
		os.Exit(exitNoProof)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	h, faults, err := run(ctx, s)
	if err != nil {
		fmt.Fprintf(os.Stderr, "histories: seed %d: %v\n", s.seed, err)
		os.Exit(exitNoProof)
	}
	found, early := check(h)
	sum := summarize(s, h, faults, found)
	sum.Early = early
	if asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		_ = enc.Encode(sum)
	} else {
		sum.print(os.Stdout)
	}
	switch {
	case len(sum.found) > 0:
		os.Exit(exitViolation)
	case len(sum.NoProof) > 0:
		os.Exit(exitNoProof)
	}
}

func parse(args []string) (s settings, asJSON bool, err error) {
	flags := flag.NewFlagSet("histories", flag.ContinueOnError)
	area := flags.String("area", "routing", "what to prove: routing")
	flags.Int64Var(&s.ops, "ops", 20_000, "read-backs of own writes to run for; every fault happens at least once")
	flags.Uint64Var(&s.seed, "seed", 0, "of everything that is drawn; 0 draws one")
	names := flags.String("faults", strings.Join(faultNames(), ","), "what happens to the servers, or none")
	flags.DurationVar(&s.limit, "limit", 0, "end by then; default 45s and a second for each 1000 read-backs")
	flags.IntVar(&s.workers, "workers", 3, "processes; the first of them opens no scopes")
	flags.IntVar(&s.sessions, "sessions", 16, "sessions at a time in each")
	flags.IntVar(&s.replicas, "replicas", 3, "of the cluster")
	flags.StringVar(&s.keep, "keep", "", "folder to leave the operations' logs in")
	flags.BoolVar(&asJSON, "json", false, "print the result as JSON")
	if err := flags.Parse(args); err != nil {
		return s, false, err
	}
	switch {
	case *area != "routing":
		return s, false, fmt.Errorf("-area is %q: must be routing", *area)
	case s.ops < 1 || s.workers < 2 || s.sessions < 1:
		return s, false, errors.New("-ops and -sessions must be at least 1, -workers at least 2")
	case s.replicas < 2 || s.replicas > 8:
		return s, false, fmt.Errorf("-replicas is %d: must be between 2 and 8", s.replicas)
	}
	if s.seed == 0 {
		s.seed = rand.Uint64()>>32 + 1
	}
	if s.limit == 0 {
		s.limit = 45*time.Second + time.Duration(s.ops)*time.Millisecond
	}
	s.faults, err = faultsOf(*names)
	return s, asJSON, err
}

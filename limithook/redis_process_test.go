package limithook

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/internal/testbed"
)

// The environment of a child process: where Redis is, the name, the limit and
// the largest lease.
const childEnv = "LIMITHOOK_TEST_CHILD"

const childWindow = 3 * time.Second

func childConfig(limit, lease int) Config {
	return Config{PerUser: Per(limit, childWindow), Global: Per(2*limit, childWindow), Lease: Lease{Max: lease, For: time.Second}, Timeout: 5 * time.Second, OnRedisFailure: Closed}
}

// TestChildProcess is the program of the other processes: it asks with many
// goroutines until it was refused or, with leases, until it holds one, tells
// what was admitted, and closes when its input ends.
func TestChildProcess(t *testing.T) {
	env := os.Getenv(childEnv)
	if env == "" {
		return // it is not a child
	}
	var addr, name string
	var limit, lease, goroutines int
	if _, err := fmt.Sscan(env, &addr, &name, &limit, &lease, &goroutines); err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = c.Close() }()
	cfg := childConfig(limit, lease)
	cfg.Redis, cfg.Name = c, name
	l := testLimiter(t, cfg, monotonic)
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range 5 {
				if _, err := l.Decide(as("a"), 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	fmt.Fprintf(os.Stdout, "admitted %d\n", l.Stats().Admitted)
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = l.Close()
}

type child struct {
	cmd *exec.Cmd
	in  io.Closer
	out io.Reader
}

func startChild(t *testing.T, addr, name string, limit, lease, goroutines int) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildProcess$") //nolint:gosec // this very binary
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d %d", childEnv, addr, name, limit, lease, goroutines))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &child{cmd, in, out}
}

// admitted waits until the child has asked.
func (c *child) admitted(t *testing.T) int {
	t.Helper()
	lines := bufio.NewScanner(c.out)
	for lines.Scan() {
		if told, ok := strings.CutPrefix(lines.Text(), "admitted "); ok {
			n, err := strconv.Atoi(told)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("the child told nothing")
	return 0
}

func TestProcessesShareOneLimit(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	addr := testbed.SharedRedis(t).Addr()
	for _, c := range []struct{ limit, lease int }{{500, 1}, {2000, 16}} {
		t.Run(fmt.Sprintf("lease %d", c.lease), func(t *testing.T) {
			t.Parallel()
			name := fmt.Sprint("process.", c.lease, ".", os.Getpid(), ".", namespaces.Add(1))
			begun := time.Now()
			var children []*child
			for range 3 {
				children = append(children, startChild(t, addr, name, c.limit, c.lease, 340))
			}
			total := 0
			for _, ch := range children {
				total += ch.admitted(t)
			}
			for _, ch := range children {
				_ = ch.in.Close()
				if err := ch.cmd.Wait(); err != nil {
					t.Error(err)
				}
			}
			switch took := time.Since(begun); {
			case took >= childWindow:
				t.Logf("it took %v, longer than the window: %d admitted", took, total)
			case total > c.limit:
				t.Errorf("%d admitted, limit %d", total, c.limit)
			case c.lease == 1 && total != c.limit:
				t.Errorf("%d of %d admitted although three times that was asked for", total, c.limit)
			}
		})
	}
}

func TestKilledProcessLosesItsLeasesForOneWindow(t *testing.T) {
	t.Parallel()
	testbed.RequireRedis(t)
	addr := testbed.SharedRedis(t).Addr()
	const limit = 10_000
	name := fmt.Sprint("killed.", os.Getpid(), ".", namespaces.Add(1))
	cfg := childConfig(limit, 16)
	cfg.Redis, cfg.Name = client(t, ""), name
	l := testLimiter(t, cfg, monotonic)
	remaining := func() int {
		d, err := l.Info(context.WithoutCancel(t.Context()), "a")
		if err != nil {
			t.Fatal(err)
		}
		return d.Remaining
	}
	c := startChild(t, addr, name, limit, 16, 1) // 5 requests: leases of 2 and of 4
	admitted := c.admitted(t)
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Wait()
	left := remaining()
	if left >= limit-admitted {
		t.Fatalf("%d remaining, %d admitted: nothing was leased", left, admitted)
	}
	t.Logf("%d units lost", limit-admitted-left)
	eventually(t, "all is free again", func() bool { return remaining() == limit })
}

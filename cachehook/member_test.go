package cachehook

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	command "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/hook"
	"github.com/gorminfra/infra/internal/testbed"
)

// Processes of their own are killed and stopped.
func TestProcesses(t *testing.T) {
	t.Parallel()
	testbed.RequirePostgres(t)
	testbed.RequireRedis(t)
	program := filepath.Join(t.TempDir(), "member")
	build := command.Command("go", "build", "-tags", "faulthooks", "-o", program, "./testdata/member")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, f := range map[string]func(t *testing.T, program string){
		"C02KilledWriterLeavesNothingStale":      killedWriterLeavesNothingStale,
		"C04ProcessStoppedForLongerThanItsLease": stoppedForLongerThanItsLease,
		"C04ProcessStoppedUntilItsBufferIsFull":  stoppedUntilItsBufferIsFull,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, program)
		})
	}
}

// member is a process that uses the cache.
type member struct {
	t    *testing.T
	cmd  *command.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	said bytes.Buffer // on its standard error
}

// start starts a member that kills itself at that point, or nowhere.
func start(t *testing.T, program, dsn, redisAddr, name, crash string) *member {
	t.Helper()
	m := &member{t: t, cmd: command.Command(program, dsn, redisAddr, name)}
	m.cmd.Env = append(os.Environ(), "INFRA_TEST_CRASH="+crash)
	m.cmd.Stderr = &m.said
	var err error
	m.in, err = m.cmd.StdinPipe()
	must(t, err)
	out, err := m.cmd.StdoutPipe()
	must(t, err)
	m.out = bufio.NewScanner(out)
	must(t, m.cmd.Start())
	t.Cleanup(func() {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
	})
	equal(t, "the member says", m.answer(), "ready")
	return m
}

func (m *member) tell(command string) {
	m.t.Helper()
	_, err := io.WriteString(m.in, command+"\n")
	must(m.t, err)
}

func (m *member) answer() string {
	m.t.Helper()
	timer := time.AfterFunc(2*time.Minute, func() { _ = m.cmd.Process.Kill() })
	defer timer.Stop()
	if !m.out.Scan() {
		m.t.Fatalf("the member has ended: %v %s", m.out.Err(), m.said.String())
	}
	return m.out.Text()
}

func (m *member) ask(command string) string {
	m.t.Helper()
	m.tell(command)
	return m.answer()
}

// killed waits for the end of a member that kills itself.
func (m *member) killed() {
	m.t.Helper()
	timer := time.AfterFunc(2*time.Minute, func() { _ = m.cmd.Process.Signal(syscall.SIGTERM) })
	defer timer.Stop()
	for m.out.Scan() {
		m.t.Fatalf("the member lived and said %q", m.out.Text())
	}
	var exit *command.ExitError
	if err := m.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 || !strings.Contains(exit.String(), "killed") {
		m.t.Fatalf("the member was not killed: %v %s", err, m.said.String())
	}
}

func (m *member) signal(s syscall.Signal) {
	m.t.Helper()
	must(m.t, m.cmd.Process.Signal(s))
}

// A writer is killed at each point of its way. Others see what it has committed
// at most a lease later, and go on caching when its mark has run out.
func killedWriterLeavesNothingStale(t *testing.T, program string) {
	for point, want := range map[string]int64{"before-mark": 10, "after-mark": 10, "after-commit": 77, "after-stamp": 77} {
		for _, how := range []string{"write", "update"} {
			t.Run(point+"/"+how, func(t *testing.T) {
				t.Parallel()
				rdb, name := client(t)
				dsn := database(t)
				leased := open(t, dsn, Config{Redis: rdb, Name: name})
				asking := open(t, dsn, Config{Redis: rdb, Name: name, Lease: RevalidateAlways})
				ready(t, leased, asking)
				writer := start(t, program, dsn, testbed.SharedRedis(t).Addr(), name, point)
				for range 2 {
					equal(t, "before", leased.price(t, 1), 10)
					equal(t, "before", asking.price(t, 1), 10)
				}
				writer.tell(how + " 77")
				writer.killed()
				died := time.Now()
				equal(t, "what Redis confirms", asking.price(t, 1), want)
				hits := leased.seen.count(hook.L1)
				eventually(t, "the mark runs out and results are cached again", markTTL+time.Minute, func() bool {
					began := time.Now()
					equal(t, "what Redis confirms", asking.price(t, 1), want)
					if p := leased.price(t, 1); p != want && began.Sub(died) > leased.cache.cfg.Lease {
						t.Fatalf("%v after the writer's death: %d", began.Sub(died), p)
					}
					return began.Sub(died) > leased.cache.cfg.Lease && leased.seen.count(hook.L1) > hits+10
				})
				equal(t, "afterwards", leased.price(t, 1), want)
			})
		}
	}
}

// A process that was stopped for longer than its lease believes nothing of before
// when it goes on.
func stoppedForLongerThanItsLease(t *testing.T, program string) {
	rdb, name := client(t)
	dsn := database(t)
	writer := open(t, dsn, Config{Redis: rdb, Name: name})
	ready(t, writer)
	m := start(t, program, dsn, testbed.SharedRedis(t).Addr(), name, "")
	stopped(t, m, writer, func() {})
}

// Redis drops the subscription of a process that does not read what it is sent.
func stoppedUntilItsBufferIsFull(t *testing.T, program string) {
	server := own(t)
	ctx := context.Background()
	_, err := server.Do(ctx, "CONFIG", "SET", "client-output-buffer-limit", "pubsub 262144 65536 1")
	must(t, err)
	rdb := clientOf(t, server.Addr())
	dsn := database(t)
	writer := open(t, dsn, Config{Redis: rdb})
	ready(t, writer)
	m := start(t, program, dsn, server.Addr(), "default", "")
	channel := writer.cache.store.(*redisStore).channel
	noise := strings.Repeat("x", 100_000)
	stopped(t, m, writer, func() {
		eventually(t, "Redis has dropped the subscriber", time.Minute, func() bool {
			must(t, rdb.Publish(ctx, channel, noise).Err())
			return rdb.PubSubNumSub(ctx, channel).Val()[channel] == 1 // the writer's own
		})
	})
}

// stopped stops a member while it reads, writes, and looks at what it reads when
// it goes on. meanwhile is called between its stop and the write.
func stopped(t *testing.T, m *member, writer *instance, meanwhile func()) {
	t.Helper()
	lease := writer.cache.cfg.Lease
	equal(t, "the member reads", m.ask("read"), "10")
	for price := int64(100); price < 103; price++ {
		m.tell("watch " + strconv.FormatInt(price, 10))
		time.Sleep(time.Duration(price-95) * 10 * time.Millisecond) //nolint:forbidigo // it reads meanwhile
		m.signal(syscall.SIGSTOP)
		meanwhile()
		writer.setPrice(t, 1, price)
		wrote := time.Now()
		time.Sleep(lease + 100*time.Millisecond) //nolint:forbidigo // it is stopped for longer than its lease
		m.signal(syscall.SIGCONT)
		last, err := strconv.ParseInt(m.answer(), 10, 64)
		must(t, err)
		if late := time.Unix(0, last).Sub(wrote); late > lease {
			t.Fatalf("an old price was read %v after the write, with a lease of %v", late, lease)
		}
	}
}

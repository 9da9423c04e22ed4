package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// killAfter is how long a server may take to end after a signal that asks it
// to before it is killed.
const killAfter = 20 * time.Second

// process is one server program that can be started, hurt and started again.
// Its methods may be called from several goroutines.
type process struct {
	name     string
	path     string
	args     []string
	dir      string // working directory
	logPath  string // standard output and error, appended
	cred     *syscall.Credential
	deathSig syscall.Signal      // sent by the kernel when this process dies (Linux)
	children func(pid int) []int // the processes to freeze with pid, nil for none

	mu   sync.Mutex // guards the fields below
	cmd  *exec.Cmd  // nil while not running
	done chan struct{}
	held []int // frozen process ids, the server's own first
}

// start runs the program. The goroutine that starts it also waits for it and
// keeps its thread: the kernel sends the death signal when the starting thread
// ends, not the process.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return fmt.Errorf("testbed: start %s: it is running", p.name)
	}
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("testbed: start %s: %w", p.name, err)
	}
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.SysProcAttr = sysProcAttr(p.cred, p.deathSig)

	started, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		defer log.Close()
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how a server ended is for its log to say
		}
	}()
	if err := <-started; err != nil {
		<-done
		return fmt.Errorf("testbed: start %s: %w", p.name, err)
	}
	p.cmd, p.done, p.held = cmd, done, nil
	return nil
}

// running must be called with mu held.
func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running()
}

// stop sends sig, waits for the end, and kills after killAfter. A frozen
// process is thawed, for it could not act on sig. Stopping what does not run is
// no error.
func (p *process) stop(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil && p.running() {
		return fmt.Errorf("testbed: stop %s: %w", p.name, err)
	}
	p.thawLocked()
	timer := time.NewTimer(killAfter)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	return fmt.Errorf("testbed: stop %s: it did not end within %v of %v and was killed; log: %s", p.name, killAfter, sig, p.log())
}

// freeze stops the process and its children where they stand. Connections stay
// open and unanswered, as with a machine that hangs.
func (p *process) freeze() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return fmt.Errorf("testbed: freeze %s: it is not running", p.name)
	}
	if p.held != nil {
		return nil
	}
	pid := p.cmd.Process.Pid
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("testbed: freeze %s: %w", p.name, err)
	}
	p.held = []int{pid}
	// A stopped parent starts no more children, so the list is complete once
	// the stop has taken effect, which it may not have when Signal returns.
	deadline := time.Now().Add(time.Second)
	for !isStopped(pid) && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if p.children != nil {
		for _, child := range p.children(pid) {
			if syscall.Kill(child, syscall.SIGSTOP) == nil { // else it has just ended
				p.held = append(p.held, child)
			}
		}
	}
	return nil
}

func (p *process) thaw() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return fmt.Errorf("testbed: thaw %s: it is not running", p.name)
	}
	p.thawLocked()
	return nil
}

func (p *process) thawLocked() {
	for i := len(p.held) - 1; i >= 0; i-- { // children first: the parent acts on their state
		_ = syscall.Kill(p.held[i], syscall.SIGCONT)
	}
	p.held = nil
}

// log returns the last lines that the program wrote.
func (p *process) log() string {
	const lines = 40
	b, err := os.ReadFile(filepath.Clean(p.logPath))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

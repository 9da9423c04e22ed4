package cached

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/internal/testbed"
)

// child is one life of a worker. The proxies between it and each Redis are those
// of its next life too.
type child struct {
	parent             *parent
	index              int
	inst               uint8
	commands, messages map[string]*testbed.Proxy // by the address of a Redis

	cmd      *exec.Cmd
	log      string
	inMu     sync.Mutex // guards in
	in       io.WriteCloser
	answers  chan answer
	ops      atomic.Int64
	killed   atomic.Bool
	ended    chan struct{}
	stats    *cachehook.Stats // once ended, unless killed
	refusals map[string]int   // once ended, unless killed
}

func (p *parent) newChild(index int) (*child, error) {
	w := &child{parent: p, index: index, commands: map[string]*testbed.Proxy{}, messages: map[string]*testbed.Proxy{}}
	for _, r := range p.redis.Nodes() {
		for _, into := range []map[string]*testbed.Proxy{w.commands, w.messages} {
			proxy, err := testbed.StartProxy(r.Addr())
			if err != nil {
				return nil, err
			}
			into[r.Addr()] = proxy
		}
	}
	return w, nil
}

func (w *child) closeProxies() (err error) {
	for _, proxies := range []map[string]*testbed.Proxy{w.commands, w.messages} {
		for _, proxy := range proxies {
			err = errors.Join(err, proxy.Close())
		}
	}
	return err
}

// maxLives is how many an instance's number can tell apart.
const maxLives = 1 << instBits

// kinds of workers: the first are split, the second work in scopes, the third ask
// Redis at each hit.
const kinds = 3

// startLife starts the process. Workers differ in what they promise.
func (p *parent) startLife(ctx context.Context, w *child) error {
	if len(p.lives)+1 >= maxLives {
		return fmt.Errorf("more than %d lives", maxLives)
	}
	w.inst = uint8(len(p.lives) + 1) // 0 is that of the parent's own looks
	w.log = p.logPath(w.inst)
	w.answers, w.ended = make(chan answer, 16), make(chan struct{})
	cfg := workerConfig{
		Index: w.index, Inst: w.inst, Seed: p.settings.Seed,
		Commands: map[string]string{}, Messages: map[string]string{},
		Lease: lease, Readers: p.settings.Readers, Writers: 2, Pause: 4 * time.Millisecond,
		TTL: ttl, MaxLag: maxLag, Interval: interval, Log: w.log, Entries: 1000,
	}
	switch w.index % kinds {
	case 0:
		cfg.Split = true
	case 1:
		cfg.Scoped = true
	case 2:
		// Its memory is so small that it reads the second level, and what that has
		// lost, all the time.
		cfg.Lease, cfg.FailWrite, cfg.Entries = cachehook.RevalidateAlways, true, 8
	}
	p.h.instances[w.inst] = instance{lease: max(0, int64(cfg.Lease)), failWrite: cfg.FailWrite, scoped: cfg.Scoped}
	primary := p.cluster.Primary()
	cfg.Nodes = append(cfg.Nodes, nodeConfig{primary.Name(), primary.DSN("")})
	for i, n := range p.cluster.Replicas() {
		cfg.Nodes = append(cfg.Nodes, nodeConfig{n.Name(), testbed.DSN(p.links[i].Addr(), "")})
	}
	for addr, proxy := range w.commands {
		cfg.Commands[addr], cfg.Messages[addr] = proxy.Addr(), w.messages[addr].Addr()
	}
	cfg.Sentinels = p.redis.Addrs()
	text, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// It outlives the fault that starts it, and ends with its standard input.
	w.cmd = exec.CommandContext(context.WithoutCancel(ctx), self)
	w.cmd.Env = append(os.Environ(), WorkerEnv+"="+string(text))
	w.cmd.Stderr = os.Stderr
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := w.cmd.Start(); err != nil {
		return err
	}
	p.lives = append(p.lives, w)
	go w.listen(out)
	return nil
}

// nextLife is a child with the same place and proxies.
func (w *child) nextLife() *child {
	return &child{parent: w.parent, index: w.index, commands: w.commands, messages: w.messages}
}

// listen takes in what a worker says, until it ends.
func (w *child) listen(out io.Reader) {
	defer close(w.ended)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			a = answer{Did: "failed", Error: err.Error()}
		}
		switch a.Did {
		case "progress":
			w.ops.Store(a.Ops)
		case "stop":
			w.stats, w.refusals = a.Stats, a.Refusals
		case "failed":
			w.fail(errors.New(a.Error))
		default:
			w.answers <- a
		}
	}
	if err := w.cmd.Wait(); err != nil {
		w.fail(err)
	}
}

func (w *child) fail(err error) {
	if w.killed.Load() {
		return
	}
	select {
	case w.parent.failure <- fmt.Errorf("worker %d: %w", w.index, err):
	default:
	}
}

// tell sends a command. That a worker has gone shows in its answers.
func (w *child) tell(c command) {
	line, err := json.Marshal(c)
	if err != nil {
		panic(err) // it has no such fields
	}
	w.inMu.Lock()
	defer w.inMu.Unlock()
	_, _ = w.in.Write(append(line, '\n'))
}

func (w *child) await(ctx context.Context, did string) error {
	for {
		select {
		case a := <-w.answers:
			if a.Did == did {
				return nil
			}
		case <-w.ended:
			select {
			case err := <-w.parent.failure:
				return err
			default:
				return fmt.Errorf("worker %d ended before it said %s", w.index, did)
			}
		case <-ctx.Done():
			return fmt.Errorf("worker %d: wait for %s: %w", w.index, did, ctx.Err())
		}
	}
}

// kill ends the process as a crash does.
func (w *child) kill() {
	w.killed.Store(true)
	_ = w.cmd.Process.Kill()
	<-w.ended
}

func (w *child) freeze() error { return w.cmd.Process.Signal(syscall.SIGSTOP) }

func (w *child) thaw() error { return w.cmd.Process.Signal(syscall.SIGCONT) }

func (w *child) stop(ctx context.Context) error {
	w.tell(command{Do: "stop"})
	select {
	case <-w.ended:
		return nil
	case <-time.After(60 * time.Second):
		return fmt.Errorf("worker %d does not stop", w.index)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end ends a worker that was not stopped, and waits for it.
func (w *child) end() {
	if w.cmd == nil || w.cmd.Process == nil {
		return
	}
	w.inMu.Lock()
	_ = w.in.Close()
	w.inMu.Unlock()
	select {
	case <-w.ended:
	case <-time.After(5 * time.Second):
		w.kill()
	}
}

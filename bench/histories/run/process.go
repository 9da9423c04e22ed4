package run

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// Process is a worker: this program once more, told what to do by a variable of
// its environment, that obeys lines of JSON and answers by such. It ends with its
// standard input. Its methods may be called from several goroutines.
type Process struct {
	cmd    *exec.Cmd
	inMu   sync.Mutex // guards in
	in     io.WriteCloser
	killed atomic.Bool
	ended  chan struct{}
}

// Start starts one, which outlives ctx. hear takes each line that it says, and
// end how it ended, nil if well or if it was killed; both on one goroutine, before
// Ended is closed.
func Start(ctx context.Context, variable string, task any, hear func(line []byte), end func(error)) (*Process, error) {
	text, err := json.Marshal(task)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Process{ended: make(chan struct{})}
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), self)
	p.cmd.Env = append(os.Environ(), variable+"="+string(text))
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			hear(lines.Bytes())
		}
		err := p.cmd.Wait()
		if p.killed.Load() {
			err = nil
		}
		end(err)
	}()
	return p, nil
}

// Ended is closed when the process has ended and all that it said was heard.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Tell sends a command. That the process has gone shows in its answers.
func (p *Process) Tell(command any) {
	line, err := json.Marshal(command)
	if err != nil {
		panic(err) // commands have no such fields
	}
	p.inMu.Lock()
	defer p.inMu.Unlock()
	_, _ = p.in.Write(append(line, '\n'))
}

// Doom says that the process is about to be killed, by whomever: its end is no
// failure.
func (p *Process) Doom() { p.killed.Store(true) }

// Killed reports whether it was doomed.
func (p *Process) Killed() bool { return p.killed.Load() }

// Kill ends the process as a crash does, and waits for its end.
func (p *Process) Kill() {
	p.Doom()
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// End ends a process that was not stopped, and waits for it.
func (p *Process) End() {
	p.inMu.Lock()
	_ = p.in.Close()
	p.inMu.Unlock()
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		p.Kill()
	}
}

package run

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const workerVariable = "HISTORIES_RUN_TEST_WORKER"

// beWorker is the life of a process that a test starts: it says its task, then
// what it is told, and does what it says. It reports whether this is one.
func beWorker() bool {
	task := os.Getenv(workerVariable)
	if task == "" {
		return false
	}
	fmt.Println(task)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(lines.Text())
		switch lines.Text() {
		case `"fail"`:
			os.Exit(3)
		case `"hang"`:
			for {
				time.Sleep(time.Hour) //nolint:forbidigo // it ends with the process
			}
		}
	}
	return true
}

// worker is one that a test has started.
type worker struct {
	*Process
	mu    sync.Mutex
	heard []string
	err   error
	ended bool
	said  chan string
}

func startWorker(t *testing.T) *worker {
	w := &worker{said: make(chan string, 100)}
	p, err := Start(t.Context(), workerVariable, map[string]int{"task": 7}, func(line []byte) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.heard = append(w.heard, string(line))
		w.said <- string(line)
	}, func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.err, w.ended = err, true
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Process = p
	t.Cleanup(p.Kill)
	return w
}

func (w *worker) await(t *testing.T, line string) {
	t.Helper()
	for {
		select {
		case said := <-w.said:
			if said == line {
				return
			}
		case <-time.After(time.Minute):
			t.Fatalf("it does not say %s", line)
		}
	}
}

func (w *worker) awaitEnd(t *testing.T) (heard []string, err error) {
	t.Helper()
	select {
	case <-w.Ended():
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		t.Error("nobody was told how it ended before Ended was closed")
	}
	return w.heard, w.err
}

func TestProcessObeysAndEndsWithItsInput(t *testing.T) {
	t.Parallel()
	w := startWorker(t)
	w.Tell("one")
	w.Tell("two")
	w.End()
	heard, err := w.awaitEnd(t)
	if err != nil || !slices.Equal(heard, []string{`{"task":7}`, `"one"`, `"two"`}) {
		t.Errorf("heard %q, it ended with %v", heard, err)
	}
}

func TestEndOfAProcessThatFailsIsAnError(t *testing.T) {
	t.Parallel()
	w := startWorker(t)
	w.Tell("fail")
	if _, err := w.awaitEnd(t); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("it ended with %v", err)
	}
}

func TestKilledProcessHasNotFailed(t *testing.T) {
	t.Parallel()
	w := startWorker(t)
	w.Tell("hang")
	w.await(t, `"hang"`)
	if w.Killed() {
		t.Error("it counts as killed before it was")
	}
	w.Kill()
	heard, err := w.awaitEnd(t)
	if err != nil || !w.Killed() || len(heard) != 2 {
		t.Errorf("heard %q, it ended with %v, killed %v", heard, err, w.Killed())
	}
	w.Tell("more") // nobody hears it, nobody waits for it
}

// One that dies by its own hand, as it was told to, was killed as well.
func TestDoomedProcessMayDieByItself(t *testing.T) {
	t.Parallel()
	w := startWorker(t)
	w.Doom()
	w.Tell("fail")
	if _, err := w.awaitEnd(t); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

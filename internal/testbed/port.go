package testbed

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
)

// Ports are taken from below the ranges that operating systems hand out for
// outgoing connections (Linux from 32768, macOS from 49152), so that a server
// that is stopped finds its port still free when it starts again.
const (
	firstPort = 12_000
	lastPort  = 32_000
	blockSize = 100
)

// portAllocator gives each port to one process and never twice. Test binaries
// run at the same time, and a port that one has chosen but does not listen on
// yet must not look free to another, so a process claims a whole block of
// ports first. It claims it by listening on the block's first port: a lock
// that the kernel releases whatever way the process ends.
type portAllocator struct {
	mu     sync.Mutex // guards the fields below
	claims []net.Listener
	next   int // the next port to give away
	end    int // of the claimed block
}

var ports portAllocator

// freePort returns a loopback port that nobody listens on and that this
// process has not been given before.
func freePort() (int, error) { return ports.take() }

func (a *portAllocator) take() (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		if a.next == a.end {
			if err := a.claim(); err != nil {
				return 0, err
			}
		}
		port := a.next
		a.next++
		if l, err := listen(port); err == nil {
			return port, closeListener(l)
		}
	}
}

// claim must be called with mu held.
func (a *portAllocator) claim() error {
	const blocks = (lastPort - firstPort) / blockSize
	for _, i := range rand.Perm(blocks) {
		first := firstPort + i*blockSize
		if l, err := listen(first); err == nil {
			a.claims = append(a.claims, l) // open until the process ends
			a.next, a.end = first+1, first+blockSize
			return nil
		}
	}
	return fmt.Errorf("testbed: no free block of %d ports on 127.0.0.1 between %d and %d", blockSize, firstPort, lastPort)
}

// closeListener closes l so that its port is free at once. A process that is being
// started holds a copy of each socket until it runs its program; shutting the socket
// down ends the copies too, where the system does so to one that listens, as Linux.
func closeListener(l net.Listener) error {
	if raw, err := l.(*net.TCPListener).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RD) })
	}
	return l.Close()
}

func listen(port int) (net.Listener, error) { return net.Listen("tcp", address(port)) }

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

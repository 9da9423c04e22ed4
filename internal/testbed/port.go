package testbed

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports are taken from below the ranges that operating systems hand out for
// outgoing connections (Linux from 32768, macOS from 49152), so that a server
// that is stopped finds its port still free when it starts again.
const (
	firstPort = 12_000
	lastPort  = 32_000
)

var ports struct {
	mu    sync.Mutex // guards taken
	taken map[int]bool
}

// freePort returns a loopback port that nobody listens on and that this
// process has not been given before.
func freePort() (int, error) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.taken == nil {
		ports.taken = make(map[int]bool)
	}
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if ports.taken[port] {
			continue
		}
		l, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		_ = l.Close()
		ports.taken[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("testbed: no free port on 127.0.0.1 between %d and %d", firstPort, lastPort)
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

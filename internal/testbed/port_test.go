package testbed

import "testing"

func TestTwoAllocatorsShareNoPort(t *testing.T) {
	var a, b portAllocator // as two processes have them
	t.Cleanup(func() {
		for _, l := range append(a.claims, b.claims...) {
			_ = l.Close()
		}
	})
	seen := make(map[int]bool)
	for range blockSize + 10 { // beyond one block each
		for _, alloc := range []*portAllocator{&a, &b} {
			port, err := alloc.take()
			if err != nil {
				t.Fatal(err)
			}
			if seen[port] {
				t.Fatalf("port %d was given twice", port)
			}
			seen[port] = true
		}
	}
}

func TestAllocatorPassesOverBusyPorts(t *testing.T) {
	var a portAllocator
	first, err := a.take()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.claims[0].Close() })
	busy, err := listen(first + 1)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	port, err := a.take()
	if err != nil {
		t.Fatal(err)
	}
	if port != first+2 {
		t.Errorf("after %d with %d busy: %d, want %d", first, first+1, port, first+2)
	}
}

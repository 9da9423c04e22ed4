package testbed_test

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gorminfra/infra/internal/testbed"
)

// TestServersDieWithKilledProcess runs this test again in a process of its own,
// which starts servers, tells their addresses and is killed.
func TestServersDieWithKilledProcess(t *testing.T) {
	testbed.RequirePostgres(t)
	testbed.RequireRedis(t)
	const variable = "TESTBED_ORPHANS"
	if os.Getenv(variable) != "" {
		c, r := testbed.NewCluster(t, testbed.ClusterConfig{}), testbed.NewRedis(t, testbed.RedisConfig{})
		check(t, r.Freeze()) // a frozen server must end, too
		_, _ = os.Stdout.WriteString("servers " + c.Primary().Addr() + " " + r.Addr() + "\n")
		select {}
	}
	cmd := exec.CommandContext(deadline(t), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), variable+"=1", "TMPDIR="+sharedTempDir(t))
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	var addrs []string
	for s := bufio.NewScanner(out); len(addrs) == 0 && s.Scan(); {
		if list, ok := strings.CutPrefix(s.Text(), "servers "); ok {
			addrs = strings.Fields(list)
		}
	}
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if len(addrs) != 2 {
		t.Fatalf("servers at %v, want two", addrs)
	}
	for _, addr := range addrs {
		poll(t, "end of the server at "+addr, func(context.Context) bool {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		})
	}
}

// sharedTempDir is a folder that the servers' user can enter, unlike
// t.TempDir's, and that takes the killed process's leavings along.
func sharedTempDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "testbed-orphans-")
	check(t, err)
	check(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() {
		// A server that is ending may still write.
		poll(t, "removal of "+dir, func(context.Context) bool { return os.RemoveAll(dir) == nil })
	})
	return dir
}

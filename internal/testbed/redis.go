package testbed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// RedisConfig says what [StartRedis] starts. The zero value is a Redis without
// persistence.
type RedisConfig struct {
	// Settings are directives of redis.conf that win over the defaults of this
	// package: {"maxmemory": "10mb"}.
	Settings map[string]string
}

// Redis is one redis-server. Its methods may be called from several
// goroutines. It keeps nothing on disk: it is empty after a restart.
type Redis struct {
	name  string
	port  int
	proc  *process
	close func() error // nil for a member of a group
}

// StartRedis starts a single Redis and waits until it answers; about 20 ms.
// ctx bounds the start only. The caller closes it.
func StartRedis(ctx context.Context, cfg RedisConfig) (*Redis, error) {
	f, err := newFolder(nil)
	if err != nil {
		return nil, err
	}
	r, err := newRedis(f, "redis", cfg.Settings)
	if err != nil {
		return nil, errors.Join(err, f.remove())
	}
	r.close = sync.OnceValue(func() error { return errors.Join(r.Kill(), f.remove()) })
	if err := r.Start(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// newRedis prepares a data server in f.
func newRedis(f *folder, name string, settings map[string]string) (*Redis, error) {
	r, err := newRedisProcess(f, name)
	if err != nil {
		return nil, err
	}
	all := map[string]string{
		"port": strconv.Itoa(r.port), "bind": "127.0.0.1", "dir": f.path, "dbfilename": name + ".rdb",
		"save": "", "appendonly": "no", "repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0",
	}
	maps.Copy(all, settings)
	for k, v := range all {
		r.proc.args = append(r.proc.args, "--"+k, v)
	}
	return r, nil
}

// newRedisProcess is what a data server and a sentinel have in common.
func newRedisProcess(f *folder, name string) (*Redis, error) {
	bin, err := redisBinary()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	return &Redis{name: name, port: port, proc: &process{
		name: name, path: bin, dir: f.path, logPath: filepath.Join(f.path, name+".log"), deathSig: syscall.SIGKILL,
	}}, nil
}

// Name returns the server's name within its group, "redis" for a single one.
func (r *Redis) Name() string { return r.name }

// Port returns the server's TCP port on 127.0.0.1. It stays the same over
// restarts.
func (r *Redis) Port() int { return r.port }

// Addr returns "127.0.0.1:port".
func (r *Redis) Addr() string { return address(r.port) }

// Start starts a stopped server, empty, and waits until it answers.
func (r *Redis) Start(ctx context.Context) error {
	if err := r.proc.start(); err != nil {
		return err
	}
	return until(ctx, r.name+" to answer", func(ctx context.Context) (bool, error) {
		if !r.proc.alive() {
			return false, fatalError{fmt.Errorf("it ended; log: %s", r.Log())}
		}
		err := r.ping(ctx)
		return err == nil, err
	})
}

// ping does without a client: a client holds back after dials that fail, and
// while a server starts they do.
func (r *Redis) ping(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", r.Addr())
	if err != nil {
		return err
	}
	defer conn.Close()
	if t, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(t)
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	reply, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && reply != "+PONG\r\n" {
		err = errors.New(strings.TrimSpace(reply))
	}
	return err
}

// Stop shuts the server down in an orderly way (SIGTERM).
func (r *Redis) Stop() error { return r.proc.stop(syscall.SIGTERM) }

// Kill ends the server at once (SIGKILL).
func (r *Redis) Kill() error { return r.proc.stop(syscall.SIGKILL) }

// Freeze stops the server where it stands (SIGSTOP). Connections stay open,
// new ones are still accepted by the kernel, none gets an answer.
func (r *Redis) Freeze() error { return r.proc.freeze() }

// Thaw continues a frozen server.
func (r *Redis) Thaw() error { return r.proc.thaw() }

// Running reports whether the server's process exists, frozen or not.
func (r *Redis) Running() bool { return r.proc.alive() }

// Log returns the last lines of the server's log.
func (r *Redis) Log() string { return r.proc.log() }

// FlushAll removes all keys of all databases.
func (r *Redis) FlushAll(ctx context.Context) error {
	return r.with(ctx, func(ctx context.Context, c *redis.Client) error { return c.FlushAll(ctx).Err() })
}

// ClientKill closes the connections of all clients, subscribers included, and
// returns their number. New connections are served.
func (r *Redis) ClientKill(ctx context.Context) (killed int, err error) {
	err = r.with(ctx, func(ctx context.Context, c *redis.Client) error {
		for _, kind := range []string{"normal", "pubsub"} {
			n, err := c.ClientKillByFilter(ctx, "TYPE", kind, "SKIPME", "yes").Result()
			if err != nil {
				return err
			}
			killed += int(n)
		}
		return nil
	})
	return killed, err
}

// Close stops the server and removes its files. It is idempotent. On a member
// of a group it only kills the server: the files are the group's.
func (r *Redis) Close() error {
	if r.close == nil {
		return r.Kill()
	}
	return r.close()
}

// Do sends one command on a connection of its own.
func (r *Redis) Do(ctx context.Context, args ...any) (reply any, err error) {
	err = r.with(ctx, func(ctx context.Context, c *redis.Client) error {
		reply, err = c.Do(ctx, args...).Result()
		return err
	})
	return reply, err
}

// with lends f a client that neither retries nor keeps connections.
func (r *Redis) with(ctx context.Context, f func(context.Context, *redis.Client) error) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	c := redis.NewClient(&redis.Options{
		Addr: r.Addr(), PoolSize: 1, MaxRetries: -1, DialerRetries: 1,
		ContextTimeoutEnabled: true, Protocol: 2, DisableIdentity: true,
	})
	err := f(ctx, c)
	_ = c.Close()
	if err != nil {
		return fmt.Errorf("testbed: %s: %w", r.name, err)
	}
	return nil
}

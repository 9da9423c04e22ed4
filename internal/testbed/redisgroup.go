package testbed

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// redisGroup is the folder and the servers that a Cluster or a Sentinel setup
// consists of.
type redisGroup struct {
	folder  *folder
	members []*Redis
}

func (g *redisGroup) start(ctx context.Context) error {
	return each(g.members, func(r *Redis) error { return r.Start(ctx) })
}

func (g *redisGroup) closeAll() error {
	return errors.Join(each(g.members, (*Redis).Kill), g.folder.remove())
}

// info returns the value of one field of INFO or CLUSTER INFO.
func (r *Redis) info(ctx context.Context, field string, command ...any) (string, error) {
	reply, err := r.Do(ctx, command...)
	if err != nil {
		return "", err
	}
	text, _ := reply.(string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name == field {
			return value, nil
		}
	}
	return "", fmt.Errorf("testbed: %s: %v has no field %s", r.name, command, field)
}

// waitInfo waits until a field of INFO replication or CLUSTER INFO has a value.
func (r *Redis) waitInfo(ctx context.Context, field, want string, command ...any) error {
	return until(ctx, fmt.Sprintf("%s's %s to be %s", r.name, field, want), func(ctx context.Context) (bool, error) {
		got, err := r.info(ctx, field, command...)
		return got == want, err
	})
}

func (r *Redis) isMaster(ctx context.Context) (bool, error) {
	role, err := r.info(ctx, "role", "INFO", "replication")
	return role == "master", err
}

// waitReplicating waits until r is a replica in step with its master.
func (r *Redis) waitReplicating(ctx context.Context) error {
	return r.waitInfo(ctx, "master_link_status", "up", "INFO", "replication")
}

// waitOnline waits until r, a master, sends its replica what is written. A replica
// calls its link up as much as a second before: the master holds writes back until
// the first acknowledgement.
func (r *Redis) waitOnline(ctx context.Context) error {
	return until(ctx, r.name+" to send to its replica", func(ctx context.Context) (bool, error) {
		n, err := r.Do(ctx, "WAIT", 1, 1)
		return n == int64(1), err
	})
}

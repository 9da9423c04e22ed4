package testbed

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// binaries is a directory that holds a complete set of one Postgres version.
type binaries struct{ dir string }

func (b binaries) path(name string) string { return filepath.Join(b.dir, name) }

// postgresBinaries finds the directory once per process. PATH comes first, with
// links followed: distributions and people link single programs into PATH, and
// the programs beside the link's target are the ones of the same version.
var postgresBinaries = sync.OnceValues(func() (binaries, error) {
	var dirs []string
	if p, err := exec.LookPath("initdb"); err == nil {
		if target, err := filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
		dirs = append(dirs, filepath.Dir(p))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",           // Debian, Ubuntu
		"/usr/pgsql-*/bin",                    // Red Hat
		"/opt/homebrew/opt/postgresql@*/bin",  // macOS, arm64
		"/usr/local/opt/postgresql@*/bin",     // macOS, amd64
		"/Applications/Postgres.app/*/*/*bin", // Postgres.app
	} {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, newestFirst(found)...)
	}
	for _, dir := range dirs {
		if isComplete(dir) {
			return binaries{dir}, nil
		}
	}
	return binaries{}, fmt.Errorf("testbed: postgres: %w: no directory with %s in PATH or the usual places",
		ErrNotInstalled, strings.Join(postgresPrograms, ", "))
})

var postgresPrograms = []string{"initdb", "postgres", "pg_basebackup"}

func isComplete(dir string) bool {
	for _, name := range postgresPrograms {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// newestFirst orders directories by the first number in their path, so that
// version 16 comes before 9.
func newestFirst(dirs []string) []string {
	version := func(dir string) int {
		digits := strings.FieldsFunc(dir, func(r rune) bool { return r < '0' || r > '9' })
		if len(digits) == 0 {
			return 0
		}
		n, _ := strconv.Atoi(digits[0])
		return n
	}
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(version(b), version(a)) })
	return dirs
}

var redisBinary = sync.OnceValues(func() (string, error) {
	p, err := exec.LookPath("redis-server")
	if err != nil {
		return "", fmt.Errorf("testbed: redis: %w: no redis-server in PATH", ErrNotInstalled)
	}
	// Folders of servers are the working directories of their processes, so a
	// relative entry of PATH would point elsewhere.
	if p, err = filepath.Abs(p); err != nil {
		return "", err
	}
	if _, err := os.Stat(p); err != nil {
		return "", err
	}
	return p, nil
})

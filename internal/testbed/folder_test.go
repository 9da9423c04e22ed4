package testbed

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSweepRemovesOnlyOldUnlockedFolders(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	old := time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		name         string
		locked, aged bool
		stays        bool
	}{
		{"in use", true, true, true},
		{"just left", false, false, true},
		{"left long ago", false, true, false},
	} {
		f, err := newFolder(nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.aged {
			if err := os.Chtimes(filepath.Join(f.path, "lock"), old, old); err != nil {
				t.Fatal(err)
			}
		}
		if !tt.locked {
			_ = f.lock.Close()
		}
		sweepFolders()
		if _, err := os.Stat(f.path); (err == nil) != tt.stays {
			t.Errorf("%s: %v, stays: %v", tt.name, err, tt.stays)
		}
		_ = f.remove()
	}
}

func TestNewestFirstComparesNumbers(t *testing.T) {
	got := newestFirst([]string{"/usr/lib/postgresql/9.6/bin", "/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/16/bin"})
	if want := "/usr/lib/postgresql/16/bin"; got[0] != want {
		t.Errorf("first is %s, want %s", got[0], want)
	}
}

func TestDatabaseNameNeedsNoQuoting(t *testing.T) {
	for test, want := range map[string]string{
		"TestX/G05 créate": "t7_testx_g05_cr_ate",
		"Testaaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeee": "t7_testaaaaaaaaaabbbbbbbbbbccccccccccdddddd",
	} {
		if got := databaseName(test, 7); got != want {
			t.Errorf("%q: %q, want %q", test, got, want)
		}
	}
}

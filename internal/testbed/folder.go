package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const folderPattern = "infra-testbed-"

// folder is a temporary folder that is locked as long as this process uses it,
// so that the folder of a killed process can be told from one in use.
type folder struct {
	path string
	lock *os.File
}

// newFolder makes a folder that only its owner can enter. The owner is cred's
// user, or the process's where cred is nil.
func newFolder(cred *syscall.Credential) (*folder, error) {
	sweepFolders()
	path, err := os.MkdirTemp("", folderPattern)
	if err != nil {
		return nil, fmt.Errorf("testbed: %w", err)
	}
	f := &folder{path: path}
	f.lock, err = os.Create(filepath.Join(path, "lock"))
	if err == nil {
		err = syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err == nil {
		err = chown(path, cred)
	}
	if err != nil {
		_ = f.remove()
		return nil, fmt.Errorf("testbed: %w", err)
	}
	return f, nil
}

func (f *folder) remove() error {
	err := os.RemoveAll(f.path)
	if f.lock != nil {
		_ = f.lock.Close()
	}
	return err
}

// sweepFolders removes what killed processes left. Young folders are spared:
// their lock may not be taken yet, or their servers may still be ending.
func sweepFolders() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), folderPattern+"*"))
	for _, dir := range dirs {
		lock, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			continue
		}
		info, err := lock.Stat()
		if err == nil && time.Since(info.ModTime()) > time.Minute &&
			syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = lock.Close()
	}
}

func chown(path string, cred *syscall.Credential) error {
	if cred == nil {
		return nil
	}
	return os.Chown(path, int(cred.Uid), int(cred.Gid))
}

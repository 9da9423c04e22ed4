package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// kind is what an operation did.
type kind uint8

const (
	kindWrite    kind = iota // one statement that commits by itself
	kindCommit               // a transaction that was to commit
	kindRollback             // a transaction that wrote and rolled back
	kindRead                 // one read outside transactions
	kindReadOnly             // a read in a read-only transaction
	kindInside               // a read of its own write in a transaction
	kindPage                 // a commit that was to end where a page of WAL ends
	numKinds
)

var kindNames = [numKinds]string{"write", "commit", "rollback", "read", "read-only tx", "read in tx", "page commit"}

func (k kind) String() string { return kindNames[k] }
func (k kind) writes() bool   { return k == kindWrite || k == kindCommit || k == kindPage }
func (k kind) reads() bool    { return k == kindRead || k == kindReadOnly }

// status is how an operation ended for its caller.
type status uint8

const (
	done    status = iota // acknowledged
	failed                // an error that says that nothing happened
	unknown               // an error that leaves open what happened
	numStatuses
)

var statusNames = [numStatuses]string{"ok", "failed", "unknown"}

func (s status) String() string { return statusNames[s] }

// flags of an operation.
const (
	standby   uint8 = 1 << iota // the serving node said that it is in recovery
	carried                     // the session came from another scope or process, by a token
	scopeless                   // of no scope: its session is the process
	boundary                    // the commit ended where a page of WAL ends
	starved                     // no replica served the session's reads within the patience
	begun                       // the write begins; its end is logged under the same ID, unless its process is killed
)

// op is one operation as its worker saw it. It has a fixed size in the log.
type op struct {
	ID      uint64 // of a write; unique over all workers
	Session uint64 // unique over all workers
	Start   int64  // nanoseconds of the machine's monotonic clock
	End     int64
	Version int64  // written or observed
	Writer  uint64 // the ID of the write that was observed; 0: the row's first state
	Bound   int64  // nanoseconds of staleness that the read accepted; 0: not judged
	Cell    uint32
	Worker  uint16
	Node    uint8 // that served a read: 0 the first primary, then the replicas
	Kind    kind
	Status  status
	Flags   uint8
}

func (o *op) has(flag uint8) bool { return o.Flags&flag != 0 }

func (o *op) String() string {
	what := fmt.Sprintf("%s of cell %d", o.Kind, o.Cell)
	switch {
	case o.Kind.reads() || o.Kind == kindInside:
		what += fmt.Sprintf(" on node%d saw version %d (of write %x)", o.Node, o.Version, o.Writer)
		if o.has(standby) {
			what += ", a standby"
		}
	default:
		what += fmt.Sprintf(" as write %x made version %d", o.ID, o.Version)
	}
	return fmt.Sprintf("[%.6f %.6f] worker %d session %x: %s: %s", seconds(o.Start), seconds(o.End), o.Worker, o.Session, what, o.Status)
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }

// opLog writes operations to a file, each at once: what was logged outlives the
// process. It belongs to one goroutine at a time.
type opLog struct {
	file *os.File
	buf  []byte
}

func createLog(path string) (*opLog, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &opLog{file: f}, nil
}

func (l *opLog) add(o *op) (err error) {
	if l.buf, err = binary.Append(l.buf[:0], binary.LittleEndian, o); err == nil {
		_, err = l.file.Write(l.buf)
	}
	return err
}

func (l *opLog) close() error { return l.file.Close() }

// readLog returns the operations of a file. That the last one is cut off is no
// error: its process was killed.
func readLog(path string) ([]op, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := int64(binary.Size(op{}))
	ops := make([]op, info.Size()/size)
	in := bufio.NewReaderSize(f, 1<<20)
	if err := binary.Read(in, binary.LittleEndian, ops); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return slices.Clip(ops), nil
}

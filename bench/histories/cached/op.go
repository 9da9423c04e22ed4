package cached

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

// kind is what an operation did.
type kind uint8

const (
	kindBegun      kind = iota // a write begins; more of it is logged later
	kindCommitting             // its COMMIT, or the statement that is one, is about to be sent
	kindWrite                  // one statement that commits by itself
	kindCommit                 // a transaction that was to commit
	kindRollback               // a transaction that wrote and rolled back
	kindKey                    // a read of one row by its key
	kindList                   // a read of a group's rows
	kindJoin                   // a read of a group's rows with those of another table
	kindInside                 // a read of an own write in a transaction
	kindProbe                  // a look at the primary past the plugin
	numKinds
)

var kindNames = [numKinds]string{
	"begun", "committing", "write", "commit", "rollback", "read by key", "read of a list", "read of a join", "read in tx", "probe",
}

func (k kind) String() string  { return kindNames[k] }
func (k kind) writes() bool    { return k == kindWrite || k == kindCommit || k == kindRollback }
func (k kind) interim() bool   { return k == kindBegun || k == kindCommitting }
func (k kind) cacheable() bool { return k == kindKey || k == kindList || k == kindJoin }
func (k kind) reads() bool     { return k.cacheable() || k == kindProbe }

// status is how an operation ended for its caller.
type status uint8

const (
	done    status = iota // acknowledged
	failed                // an error that says that nothing happened
	unknown               // the outcome is open
	numStatuses
)

var statusNames = [numStatuses]string{"ok", "failed", "unknown"}

func (s status) String() string { return statusNames[s] }

// source is where an answer came from.
type source uint8

const (
	fromDatabase source = iota // past the cache, or it could not be filled
	fromFill                   // of the database, and to be kept
	fromL1
	fromL2
	fromShared // another's fill
	numSources
)

var sourceNames = [numSources]string{"database", "fill", "L1", "L2", "shared"}

func (s source) String() string { return sourceNames[s] }

// cached reports whether the caller itself asked no database.
func (s source) cached() bool { return s >= fromL1 }

// flags of an operation.
const (
	standby uint8 = 1 << iota // a replica served it
	untold                    // Redis may not have been told of the write
	full                      // the list was cut at its limit
	skipped                   // the caller wanted it past the cache
)

// cell is one row as written or read.
type cell struct {
	Row     uint16
	Grp     int8 // none: deleted
	Version uint32
	Writer  uint32 // the ID of the statement that wrote it; 0: the row's first state
}

// none is the group of a deleted row.
const none int8 = -1

// op is one operation as its worker saw it.
type op struct {
	ID      uint32 // of a write; the IDs of its statements follow it
	Session uint32 // unique over all instances; 0: the instance is the session
	Start   int64  // nanoseconds of the machine's monotonic clock
	End     int64
	Commit  int64  // of a write: when COMMIT was called, or the statement that is one
	Query   uint16 // of a read
	Inst    uint8  // instance: one life of a worker
	Kind    kind
	Status  status
	From    source
	Flags   uint8
	Cells   []cell
}

// An ID holds the instance, the number of the write in it, and that of the
// statement in the write, which is 0 for the write itself.
const (
	stmtBits = 4
	instBits = 8
	seqBits  = 32 - stmtBits - instBits
)

func newID(inst uint8, seq uint32) uint32 {
	return uint32(inst)<<(seqBits+stmtBits) | seq%(1<<seqBits)<<stmtBits
}

func writeOf(writer uint32) uint32 { return writer &^ (1<<stmtBits - 1) }

func instanceOf(writer uint32) uint8 { return uint8(writer >> (seqBits + stmtBits)) }

func (o *op) has(flag uint8) bool { return o.Flags&flag != 0 }

// mostShown bounds the cells that are told of one operation.
const mostShown = 8

func (o *op) String() string { return o.tell(rows) }

// tell is String that leaves out the other rows where there are many.
func (o *op) tell(row uint16) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%.6f %.6f] instance %d", seconds(o.Start), seconds(o.End), o.Inst)
	if o.Session != 0 {
		fmt.Fprintf(&b, " session %x", o.Session)
	}
	fmt.Fprintf(&b, ": %s", o.Kind)
	switch {
	case o.Kind.writes() || o.Kind.interim():
		fmt.Fprintf(&b, " %x", o.ID)
		if o.has(untold) {
			b.WriteString(" (Redis perhaps not told)")
		}
	case o.Kind.cacheable():
		fmt.Fprintf(&b, " (query %d) from %s", o.Query, o.From)
	}
	if o.has(standby) {
		b.WriteString(", a standby")
	}
	fmt.Fprintf(&b, ": %s", o.Status)
	for _, c := range o.Cells {
		if len(o.Cells) <= mostShown || c.Row == row {
			fmt.Fprintf(&b, " %s", c)
		}
	}
	return b.String()
}

func (c cell) String() string {
	if c.Grp == none {
		return fmt.Sprintf("%s v%d deleted by %x", rowName(c.Row), c.Version, c.Writer)
	}
	return fmt.Sprintf("%s v%d by %x", rowName(c.Row), c.Version, c.Writer)
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }

const (
	headSize = 3*8 + 2*4 + 2 + 6
	cellSize = 2 + 1 + 4 + 4
)

func (o *op) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, o.ID)
	b = le.AppendUint32(b, o.Session)
	b = le.AppendUint64(b, uint64(o.Start))
	b = le.AppendUint64(b, uint64(o.End))
	b = le.AppendUint64(b, uint64(o.Commit))
	b = le.AppendUint16(b, o.Query)
	b = append(b, o.Inst, byte(o.Kind), byte(o.Status), byte(o.From), o.Flags, byte(len(o.Cells)))
	for _, c := range o.Cells {
		b = le.AppendUint16(b, c.Row)
		b = append(b, byte(c.Grp))
		b = le.AppendUint32(b, c.Version)
		b = le.AppendUint32(b, c.Writer)
	}
	return b
}

// opLog writes operations to a file, each at once: what was logged outlives the
// process. It is safe for concurrent use.
type opLog struct {
	mu   sync.Mutex // guards the rest
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

func (l *opLog) add(o *op) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = o.append(l.buf[:0])
	_, err := l.file.Write(l.buf)
	return err
}

func (l *opLog) close() error { return l.file.Close() }

// readLog returns the operations of a file. That the last one is cut off is no
// error: its process was killed.
func readLog(path string) ([]op, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var ops []op
	le := binary.LittleEndian
	for len(b) >= headSize {
		o := op{
			ID: le.Uint32(b), Session: le.Uint32(b[4:]),
			Start: int64(le.Uint64(b[8:])), End: int64(le.Uint64(b[16:])), Commit: int64(le.Uint64(b[24:])),
			Query: le.Uint16(b[32:]), Inst: b[34], Kind: kind(b[35]), Status: status(b[36]), From: source(b[37]), Flags: b[38],
		}
		n := int(b[39])
		b = b[headSize:]
		if len(b) < n*cellSize {
			break
		}
		if o.Kind >= numKinds || o.Status >= numStatuses || o.From >= numSources {
			return nil, fmt.Errorf("%s: no operation: %v", path, &o)
		}
		if n > 0 {
			o.Cells = make([]cell, n)
		}
		for i := range o.Cells {
			o.Cells[i] = cell{le.Uint16(b), int8(b[2]), le.Uint32(b[3:]), le.Uint32(b[7:])}
			b = b[cellSize:]
		}
		ops = append(ops, o)
	}
	return slices.Clip(ops), nil
}

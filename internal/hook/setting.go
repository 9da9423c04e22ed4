package hook

import (
	"sync"
	"unsafe"

	"gorm.io/gorm"
)

// setting is stmt.Settings.Load. Most statements have no setting at all, and the
// first Load of a sync.Map makes its tree: 176 bytes of garbage a statement. A
// map of nothing but zero bytes is the zero Map, which is empty.
func setting(stmt *gorm.Statement, key string) (v any, ok bool) {
	if untouched(&stmt.Settings) {
		return nil, false
	}
	return stmt.Settings.Load(key)
}

// untouched reports whether nobody has used m yet. Like all of a statement, its
// Settings are its goroutine's own.
func untouched(m *sync.Map) bool {
	return *(*[unsafe.Sizeof(sync.Map{})]byte)(unsafe.Pointer(m)) == [unsafe.Sizeof(sync.Map{})]byte{}
}

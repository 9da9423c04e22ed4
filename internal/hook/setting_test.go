package hook

import (
	"testing"
	"unsafe"

	"gorm.io/gorm"
)

func TestSettingIsFoundAndUnusedSettingsStayUnmade(t *testing.T) {
	t.Parallel()
	stmt := &gorm.Statement{}
	if v, ok := setting(stmt, "key"); ok || v != nil {
		t.Fatalf("a statement without settings has %v", v)
	}
	if !untouched(&stmt.Settings) {
		t.Fatal("looking for a setting has made the map")
	}
	stmt.Settings.Store("other", 1)
	if _, ok := setting(stmt, "key"); ok || untouched(&stmt.Settings) {
		t.Fatal("another setting is taken for this one, or for none")
	}
	stmt.Settings.Store("key", 2)
	if v, ok := setting(stmt, "key"); !ok || v != 2 {
		t.Fatalf("setting = %v, %v, want what was stored", v, ok)
	}
	stmt.Settings.Delete("key")
	if _, ok := setting(stmt, "key"); ok {
		t.Fatal("a deleted setting is still found")
	}
}

// TestRecordStaysSmall keeps the record in the allocator's class of 352 bytes:
// what it grows by, each statement leaves as garbage.
func TestRecordStaysSmall(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(Record{}); size > 352 {
		t.Fatalf("a record has %d bytes, of which rare ones belong into rare", size)
	}
}

package cachehook

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gorminfra/infra/internal/sqltext"
)

func TestCanonicalKeys(t *testing.T) {
	t.Parallel()
	type id int32
	forty := int64(42)
	for _, c := range []struct {
		kind keyKind
		arg  any
		want string // "": it cannot be told
	}{
		{keyInteger, 42, "42"}, {keyInteger, id(42), "42"}, {keyInteger, uint8(42), "42"}, {keyInteger, "42", "42"}, {keyInteger, &forty, "42"},
		{keyInteger, "-7", "-7"}, {keyInteger, " 42", ""}, {keyInteger, "042", ""}, {keyInteger, "+42", ""}, {keyInteger, 42.0, ""},
		{keyInteger, true, ""}, {keyInteger, nil, ""}, {keyInteger, (*int64)(nil), ""}, {keyInteger, uint64(1 << 63), ""}, {keyInteger, []byte("42"), ""},
		{keyText, "42", "'42"}, {keyText, 42, ""}, {keyText, "a\x00b", "#"}, {keyText, strings.Repeat("x", 65), "#"},
		{keyUUID, [16]byte{15: 10}, "0000000000000000000000000000000a"}, {keyUUID, "00000000-0000-0000-0000-00000000000A", "0000000000000000000000000000000a"},
		{keyUUID, "{00000000-0000-0000-0000-00000000000A}", ""}, {keyUUID, "x", ""},
	} {
		got, ok := c.kind.canonical(c.arg, 0)
		if !ok {
			got = ""
		}
		if got != c.want && !(c.want == "#" && strings.HasPrefix(got, "#")) {
			t.Errorf("%d %#v: %q, want %q", c.kind, c.arg, got, c.want)
		}
	}
	r := &relation{root: "t", key: []keyColumn{{"a", keyText}, {"b", keyText}}}
	where := []sqltext.Predicate{{Column: "a", Op: "=", Args: []int{0}}, {Column: "b", Op: "=", Args: []int{1}}}
	one, _ := r.rowsOf(where, []any{"a,2:'b", "c"}, 4)
	two, _ := r.rowsOf(where, []any{"a", "b,2:'c"}, 4)
	if one[0] == two[0] {
		t.Errorf("two keys are written %q", one)
	}
}

// id tells the driver to send something else than it looks like.
type id string

func (i id) Int64Value() (pgtype.Int8, error) {
	return pgtype.Int8{Int64: int64(len(i)), Valid: true}, nil
}

type pointedID string

func (p *pointedID) Int64Value() (pgtype.Int8, error) { return id(*p).Int64Value() }

func TestC07AKeyThatTellsTheDriverWhatToSendNamesNoRow(t *testing.T) {
	t.Parallel()
	db := open(t, database(t), Config{})
	equal(t, "before", db.price(t, 2), 20)
	must(t, db.Exec(`UPDATE products SET price = 21 WHERE id = $1`, id("42")).Error)
	equal(t, "after", db.price(t, 2), 21)
	odd := id("42")
	must(t, db.Exec(`UPDATE products SET price = 22 WHERE id = $1`, &odd).Error)
	equal(t, "after that by a pointer", db.price(t, 2), 22)
	pointed := pointedID("42")
	must(t, db.Exec(`UPDATE products SET price = 23 WHERE id = $1`, &pointed).Error)
	equal(t, "after that by a method of the pointer", db.price(t, 2), 23)
}

// What asks for rows by key and for anything besides is no look-up.
func TestC07OnlyASelectByKeyAloneIsALookUp(t *testing.T) {
	t.Parallel()
	products := &relation{schema: "public", name: "products", root: tableTag("public.products"), key: []keyColumn{{"id", keyInteger}}}
	c := &catalog{relations: map[string][]*relation{"products": {products}}}
	for text, want := range map[string]bool{
		"SELECT * FROM products WHERE id = $1":                                                                       true,
		"SELECT * FROM products WHERE id IN ($1, $2) AND price > $3":                                                 true,
		"SELECT * FROM products WHERE price > $1":                                                                    false,
		"SELECT * FROM products AS p (name, id) WHERE id = $1":                                                       false,
		"SELECT * FROM products WHERE id = $1 OR price > $2":                                                         false,
		"SELECT * FROM products WHERE id = $1::real":                                                                 false,
		"SELECT * FROM products WHERE id = $1::int::text":                                                            false,
		"SELECT * FROM products WHERE id = CAST($1 AS real)":                                                         false,
		"SELECT count(*) FROM products WHERE id = $1":                                                                false,
		"SELECT (SELECT p.price FROM products p ORDER BY p.price LIMIT 1) FROM products WHERE id = $1":               false,
		"SELECT * FROM products WHERE id = $1 AND EXISTS (SELECT 1 FROM products WHERE price > 5)":                   false,
		"SELECT * FROM products WHERE id = $1 UNION ALL SELECT * FROM products":                                      false,
		"SELECT * FROM products WHERE id = $1 AND (TABLE products LIMIT 1) IS NULL":                                  false,
		"WITH x AS (SELECT * FROM products WHERE id = $1) SELECT * FROM products WHERE price > 5 OR id IN (TABLE x)": false,
	} {
		if got := c.lookup(sqltext.Analyze(text)) == products; got != want {
			t.Errorf("%s: a look-up: %v, want %v", text, got, want)
		}
	}
}

package sqltext

import (
	"strings"
	"testing"
	"time"
)

// A megabyte of whatever is read in time that grows with its length. Were one of
// these quadratic, it would take minutes.
func TestLargeTexts(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	fill := func(prefix, unit, suffix string) string {
		return prefix + strings.Repeat(unit, size/len(unit)) + suffix
	}
	for name, row := range map[string]described{
		"literal":             {fill("SELECT '", "x", "' FROM t"), "select <t ro cache"},
		"escapes":             {fill("SELECT E'", `\'`, "' FROM t"), "select <t ro cache"},
		"dollar quotes":       {fill("SELECT $q$", "$$$q ", "$q$ FROM t"), "select <t ro cache"},
		"comment":             {fill("/*", "x", "*/ SELECT 1"), "select ro"},
		"nested comments":     {strings.Repeat("/*", size/4) + strings.Repeat("*/", size/4) + "SELECT 1", "select ro"},
		"line comments":       {fill("", "-- x\n", "SELECT 1"), "select ro"},
		"white space":         {fill("", " \n", "SELECT 1"), "select ro"},
		"IN list":             {fill("SELECT * FROM t WHERE a IN (", "$1,", "2)"), "select <t ro cache"},
		"different elements":  {fill("SELECT * FROM t WHERE a IN (", "a, b, c + 1, (d), ", "2)"), "select <t ro cache"},
		"rows":                {fill("INSERT INTO t VALUES ", "(1, 'a', NULL), ", "(1)"), "insert >t maywrite"},
		"conditions":          {fill("SELECT * FROM t WHERE a = 1", " AND a = 1", ""), "select <t ro cache"},
		"wrapped conditions":  {fill("SELECT * FROM t WHERE (a = 1", ") AND (a = 1", ")"), "select <t ro cache"},
		"tables":              {fill("SELECT * FROM t", ", t", ""), "select <t ro cache"},
		"statements":          {fill("", "SELECT 1;", ""), "select multiple"},
		"semicolons":          {fill("", ";", "SELECT 1"), "select ro"},
		"CTEs":                {fill("WITH a AS (SELECT 1)", ", a AS (SELECT 1)", " SELECT * FROM a"), "select ro"},
		"unions":              {fill("SELECT a FROM t", " UNION SELECT a FROM t", ""), "select <t ro cache"},
		"signs":               {fill("SELECT 1", " + -", "1"), "select ro"},
		"plus":                {fill("SELECT 1 ", "+", "1"), "select ro"},
		"INSERT of INSERT":    {fill("", "INSERT INTO t WITH x AS (SELECT 1) ", ""), "unknown maywrite"},
		"an operator":         {fill("SELECT 1 ", "~+", " 1"), "select ro"},
		"question marks":      {fill("SELECT a ", "? ", "1 FROM t"), "select <t ro cache"},
		"casts":               {fill("SELECT 1", "::int", " FROM t"), "select <t ro cache"},
		"dots":                {fill("SELECT a", ".a", " FROM t"), "select <t ro cache"},
		"brackets":            {fill("SELECT ", "[", ""), "select ro"},
		"closing parentheses": {fill("SELECT 1", ")", ""), "unknown maywrite"},
		"open parentheses":    {fill("SELECT ", "(", ""), "unknown maywrite"},
		"nested IN":           {fill("SELECT ", "a IN (1, ", ""), "unknown maywrite"},
		"nested IN, closed":   {"SELECT " + strings.Repeat("a IN (", size/8) + strings.Repeat("1)", size/8), "unknown maywrite"},
		"nested arrays":       {"SELECT ARRAY" + strings.Repeat("[", size/2) + strings.Repeat("]", size/2), "select ro"},
		"nested VALUES":       {fill("", "VALUES (1, ", ""), "unknown maywrite"},
		"CASE":                {fill("SELECT ", "CASE WHEN ", "1"), "select ro"},
		"quotes":              {fill("SELECT ", `"`, ` FROM t`), "select <t ro cache"},
		"unterminated":        {fill("SELECT '", "x", ""), "unknown maywrite"},
		"dollar tags":         {fill("SELECT ", "$a ", "$"), "unknown maywrite"},
		"dollar openings":     {fill("SELECT ", "$a$ $b$ $c", ""), "unknown maywrite"},
		"identifier":          {fill("SELECT ", "x", " FROM t"), "select <t ro cache"},
		"invalid UTF-8":       {fill("SELECT '", "\xff", "'"), "unknown maywrite"},
		"NUL":                 {fill("", "\x00", ""), "unknown maywrite"},
		"functions":           {fill("SELECT lower(a)", ", lower(a)", " FROM t"), "select <t ro cache"},
		"savepoints":          {fill("", "SAVEPOINT x;", ""), "savepoint multiple"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			st := Parse(row.text)
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			if got := describe(st); got != row.want {
				t.Errorf("%s\n got  %s\n want %s", abridged(row.text), got, row.want)
			}
			if len(st.Shape) > 4*len(row.text)+32 {
				t.Errorf("a shape of %d bytes", len(st.Shape))
			}
		})
	}
}

func TestTextsAboveTheBoundAreUnknown(t *testing.T) {
	t.Parallel()
	st := Parse(strings.Repeat(" ", maxText) + "SELECT 1")
	if got := describe(st); got != "unknown maywrite" || st.Shape == "" || st.Fingerprint == 0 {
		t.Errorf("%s, shape %q", got, st.Shape)
	}
}

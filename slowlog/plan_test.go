package slowlog

import (
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorminfra/infra/internal/sqltext"
)

func kinds(p *QueryPlan) []Kind {
	var k []Kind
	for _, f := range p.Findings {
		k = append(k, f.Kind)
	}
	return k
}

func TestPlanIsPrintedWithWhatIsConspicuous(t *testing.T) {
	t.Parallel()
	var none *QueryPlan
	scan := func(table string, kept float64) *pgStep {
		return &pgStep{NodeType: "Seq Scan", Relation: table, PlanRows: kept}
	}
	root := &pgStep{NodeType: "Append", Plans: []pgStep{*scan("orders", 5), *scan("orders", 7), *scan("items", 1)}}
	p := root.plan(false, map[string]int64{"orders": 2000, "items": 3000})
	p.find(Finding{Kind: Spill, Step: "Sort", Detail: "Sort wrote 1 kB to disk"})
	p.find(Finding{Kind: Spill, Step: "Sort", Detail: "Sort wrote 2 kB to disk"})
	want := p.Text + `
* Seq Scan reads the whole of orders, about 2000 rows, for 5 (2 times)
* Seq Scan reads the whole of items, about 3000 rows, for 1
* Sort wrote 1 kB to disk
* Sort wrote 2 kB to disk`
	for value, want := range map[fmt.Stringer]string{none: "", p: want, &QueryPlan{Text: "SCAN a"}: "SCAN a"} {
		if got := fmt.Sprint(value); got != want {
			t.Errorf("printed\n%s\nwant\n%s", got, want)
		}
	}
}

func TestPostgresPlanIsJudged(t *testing.T) {
	t.Parallel()
	const scan = `"Node Type": "Seq Scan", "Relation Name": "orders", "Alias": "o", "Plan Rows": 5`
	cases := []struct {
		name     string
		json     string
		analyzed bool
		sizes    map[string]int64
		want     []Kind
	}{
		{"large table", `{` + scan + `}`, false, map[string]int64{"orders": 1000}, []Kind{SequentialScan}},
		{"small table", `{` + scan + `}`, false, map[string]int64{"orders": 999}, nil},
		{"table never analysed", `{` + scan + `}`, false, map[string]int64{"orders": -1}, []Kind{SequentialScan}},
		{"table of unknown size", `{` + scan + `}`, false, nil, []Kind{SequentialScan}},
		{"index scan", `{"Node Type": "Index Scan", "Relation Name": "orders", "Plan Rows": 1000000}`, false, nil, nil},
		{"ten times as many", `{"Node Type": "Index Scan", "Plan Rows": 10, "Actual Rows": 100, "Actual Loops": 1}`, true, nil, []Kind{WrongEstimate}},
		{"not quite ten times", `{"Node Type": "Index Scan", "Plan Rows": 10, "Actual Rows": 99, "Actual Loops": 1}`, true, nil, nil},
		{"ten times, of few", `{"Node Type": "Index Scan", "Plan Rows": 1, "Actual Rows": 99, "Actual Loops": 1}`, true, nil, nil},
		{"a tenth", `{"Node Type": "Index Scan", "Plan Rows": 100, "Actual Rows": 10, "Actual Loops": 1}`, true, nil, []Kind{WrongEstimate}},
		{"a tenth, but never executed", `{"Node Type": "Index Scan", "Plan Rows": 100, "Actual Rows": 0, "Actual Loops": 0}`, true, nil, nil},
		{"estimates without analyze", `{"Node Type": "Index Scan", "Plan Rows": 100, "Actual Rows": 10, "Actual Loops": 1}`, false, nil, nil},
		{"stopped by a limit", `{"Node Type": "Limit", "Plan Rows": 1, "Actual Rows": 1, "Actual Loops": 1, "Plans": [
			{"Node Type": "Index Scan", "Plan Rows": 100000, "Actual Rows": 1, "Actual Loops": 1}]}`, true, nil, nil},
		{"more than expected below a limit", `{"Node Type": "Limit", "Plan Rows": 200, "Actual Rows": 200, "Actual Loops": 1, "Plans": [
			{"Node Type": "Index Scan", "Plan Rows": 1, "Actual Rows": 200, "Actual Loops": 1}]}`, true, nil, []Kind{WrongEstimate}},
		{"inner side of a semi join", `{"Node Type": "Nested Loop", "Join Type": "Semi", "Plan Rows": 1, "Actual Rows": 1, "Actual Loops": 1, "Plans": [
			{"Node Type": "Index Scan", "Parent Relationship": "Inner", "Plan Rows": 1000, "Actual Rows": 1, "Actual Loops": 1}]}`, true, nil, nil},
		{"rows removed", `{"Node Type": "Index Scan", "Plan Rows": 50, "Actual Rows": 100, "Rows Removed by Filter": 1000, "Actual Loops": 1}`, true, nil, []Kind{RowsRemoved}},
		{"rows removed, by loops", `{"Node Type": "Index Scan", "Plan Rows": 1, "Actual Rows": 0, "Rows Removed by Filter": 10, "Actual Loops": 100}`, true, nil, []Kind{RowsRemoved}},
		{"few rows removed", `{"Node Type": "Index Scan", "Plan Rows": 1, "Actual Rows": 0, "Rows Removed by Filter": 999, "Actual Loops": 1}`, true, nil, nil},
		{"half of the rows removed", `{"Node Type": "Index Scan", "Plan Rows": 5000, "Actual Rows": 5000, "Rows Removed by Filter": 5000, "Actual Loops": 1}`, true, nil, nil},
		{"sort on disk", `{"Node Type": "Sort", "Sort Method": "external merge", "Sort Space Used": 2048, "Sort Space Type": "Disk", "Actual Loops": 1}`, true, nil, []Kind{Spill}},
		{"sort in memory", `{"Node Type": "Sort", "Sort Method": "quicksort", "Sort Space Used": 20, "Sort Space Type": "Memory", "Actual Loops": 1}`, true, nil, nil},
		{"hash in batches", `{"Node Type": "Hash", "Hash Batches": 4, "Actual Loops": 1}`, true, nil, []Kind{Spill}},
		{"hash in one batch", `{"Node Type": "Hash", "Hash Batches": 1, "Actual Loops": 1}`, true, nil, nil},
		{"aggregate on disk", `{"Node Type": "Aggregate", "Strategy": "Hashed", "HashAgg Batches": 5, "Disk Usage": 900, "Actual Loops": 1}`, true, nil, []Kind{Spill}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			root, err := parsePostgres([]byte(`[{"Plan": ` + c.json + `}]`))
			if err != nil {
				t.Fatal(err)
			}
			p := root.plan(c.analyzed, c.sizes)
			if got := kinds(p); !slices.Equal(got, c.want) {
				t.Fatalf("findings = %+v, want %v\n%s", p.Findings, c.want, p.Text)
			}
		})
	}
}

func TestPostgresPlanIsWrittenAsATreeWithoutValues(t *testing.T) {
	t.Parallel()
	root, err := parsePostgres([]byte(`[{"Plan": {"Node Type": "Nested Loop", "Join Type": "Left", "Startup Cost": 0.5, "Total Cost": 100, "Plan Rows": 10, "Plan Width": 8,
		"Output": ["'secret'::text"], "Plans": [
		{"Node Type": "Seq Scan", "Parallel Aware": true, "Relation Name": "orders", "Alias": "o", "Plan Rows": 10, "Filter": "(name = 'secret'::text)"},
		{"Node Type": "Index Scan", "Index Name": "lines_pkey", "Relation Name": "lines", "Alias": "lines", "Plan Rows": 1, "Index Cond": "(id = 4711)",
		 "Novelty": "secret"}]}}]`))
	if err != nil {
		t.Fatal(err)
	}
	want := `Nested Loop Left Join  (cost=0.50..100.00 rows=10 width=8)
  ->  Parallel Seq Scan on orders o  (cost=0.00..0.00 rows=10 width=0)
        Filter: (name = ?)
  ->  Index Scan using lines_pkey on lines  (cost=0.00..0.00 rows=1 width=0)
        Index Cond: (id = ?)`
	if got := root.plan(false, nil).Text; got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}

func TestUnreadablePlansAreErrorsWithoutTheirText(t *testing.T) {
	t.Parallel()
	for _, doc := range []string{``, `secret`, `[]`, `[{}]`, `[{"Plan": null}]`, `[{"Plan": {}}]`, `{"a": "secret"}`, `[{"Plan": {"Node Type": 5}}]`} {
		if _, err := parsePostgres([]byte(doc)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("Postgres %q: %v", doc, err)
		}
		if _, err := parseMySQL([]byte(doc)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("MySQL %q: %v", doc, err)
		}
	}
}

func TestPlanIsBounded(t *testing.T) {
	t.Parallel()
	leaf := `{"Node Type": "Seq Scan", "Relation Name": "` + strings.Repeat("r", 2000) + `"}`
	doc := `[{"Plan": {"Node Type": "Append", "Plans": [` + strings.TrimSuffix(strings.Repeat(leaf+",", 5000), ",") + `]}}]`
	root, err := parsePostgres([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if p := root.plan(false, nil); len(p.Text) > maxPlanText || len(p.Findings) > maxFindings || p.size() > 3*maxPlanText {
		t.Fatalf("text %d bytes, %d findings, %d bytes in all", len(p.Text), len(p.Findings), p.size())
	}
}

// ask runs a planner on a fake database that answers rows.
func ask(t *testing.T, pl planner, text string, columns []string, rows ...[]driver.Value) (*QueryPlan, *fake, error) {
	t.Helper()
	f := &fake{answer: func(string) ([]string, [][]driver.Value, error) { return columns, rows, nil }}
	conn, err := f.open(t).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // in memory
	p, err := pl(t.Context(), conn, &job{sql: text, text: sqltext.Parse(text), timeout: time.Second}, Analyze)
	return p, f, err
}

var sqliteColumns = []string{"id", "parent", "notused", "detail"}

func TestSQLitePlan(t *testing.T) {
	t.Parallel()
	row := func(id, parent int64, detail string) []driver.Value {
		return []driver.Value{id, parent, int64(0), detail}
	}
	cases := []struct {
		name   string
		rows   [][]driver.Value
		text   string
		tables []string // read whole
	}{
		{"scan", [][]driver.Value{row(2, 0, "SCAN orders")}, "SCAN orders", []string{"orders"}},
		{"scan before 3.36", [][]driver.Value{row(2, 0, "SCAN TABLE orders AS o")}, "SCAN TABLE orders AS o", []string{"orders"}},
		{"search", [][]driver.Value{row(2, 0, "SEARCH orders USING INTEGER PRIMARY KEY (rowid=?)")}, "SEARCH orders USING INTEGER PRIMARY KEY (rowid=?)", nil},
		{"whole index", [][]driver.Value{row(2, 0, "SCAN orders USING COVERING INDEX by_customer")}, "SCAN orders USING COVERING INDEX by_customer", nil},
		{"automatic index", [][]driver.Value{row(2, 0, "SEARCH l USING AUTOMATIC COVERING INDEX (order_id=?)")}, "SEARCH l USING AUTOMATIC COVERING INDEX (order_id=?)", []string{"l"}},
		{"nested", [][]driver.Value{row(3, 0, "CO-ROUTINE x"), row(7, 3, "SCAN a"), row(9, 0, "SCAN b"), row(12, 0, "USE TEMP B-TREE FOR ORDER BY")},
			"CO-ROUTINE x\n  SCAN a\nSCAN b\nUSE TEMP B-TREE FOR ORDER BY", []string{"a", "b"}},
		{"constants", [][]driver.Value{row(1, 0, "SCAN CONSTANT ROW"), row(2, 0, "SCAN 3 CONSTANT ROWS")}, "SCAN CONSTANT ROW\nSCAN 3 CONSTANT ROWS", nil},
		{"subqueries", [][]driver.Value{row(1, 0, "SCAN (subquery-1)"), row(2, 0, "SCAN SUBQUERY 1")}, "SCAN (subquery-1)\nSCAN SUBQUERY 1", nil},
		{"virtual table", [][]driver.Value{row(1, 0, "SCAN docs VIRTUAL TABLE INDEX 0:'secret'")}, "SCAN docs VIRTUAL TABLE INDEX 0:?", nil},
		{"nothing", nil, "", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, f, err := ask(t, explainSQLite, "SELECT 1", sqliteColumns, c.rows...)
			if err != nil {
				t.Fatal(err)
			}
			var tables []string
			for _, f := range p.Findings {
				if f.Kind != SequentialScan || f.Rows != -1 {
					t.Errorf("finding %+v", f)
				}
				tables = append(tables, f.Table)
			}
			if p.Text != c.text || !slices.Equal(tables, c.tables) {
				t.Fatalf("text\n%s\nwant\n%s\ntables %v, want %v", p.Text, c.text, tables, c.tables)
			}
			if got := f.asked(""); !slices.Equal(got, []string{"EXPLAIN QUERY PLAN SELECT 1"}) {
				t.Fatalf("asked %q", got)
			}
		})
	}
}

const mysqlDoc = `{"query_block": {"select_id": 1, "cost_info": {"query_cost": "410.50"}, "ordering_operation": {"using_filesort": true, "nested_loop": [
	{"table": {"table_name": "orders", "access_type": "ALL", "rows_examined_per_scan": 20000, "rows_produced_per_join": 20, "filtered": "10.00",
	 "used_columns": ["id", "name"], "attached_condition": "(` + "`shop`.`orders`.`name` = 'secret'" + `)"}},
	{"table": {"table_name": "lines", "access_type": "ref", "key": "by_order", "rows_examined_per_scan": 3, "novelty": "secret"}},
	{"table": {"table_name": "status", "access_type": "ALL", "rows_examined_per_scan": 3}},
	{"table": {"table_name": "<temporary>", "access_type": "ALL", "rows_examined_per_scan": 30000}}]}}}`

func TestMySQLPlan(t *testing.T) {
	t.Parallel()
	p, f, err := ask(t, explainMySQL, "SELECT 1", []string{"EXPLAIN"}, []driver.Value{mysqlDoc})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Findings) != 1 || p.Findings[0].Table != "orders" || p.Findings[0].Rows != 20000 {
		t.Fatalf("findings %+v", p.Findings)
	}
	for _, want := range []string{"table orders, access_type ALL, rows_examined_per_scan 20000, filtered 10, condition (`shop`.`orders`.`name` = ?)", "ordering_operation, using_filesort", "table lines, access_type ref, key by_order"} {
		if !strings.Contains(p.Text, want) {
			t.Errorf("%q is missing in\n%s", want, p.Text)
		}
	}
	if all := fmt.Sprintf("%+v", p); strings.Contains(all, "secret") {
		t.Errorf("a value came through: %s", all)
	}
	if got := f.asked(""); !slices.Equal(got, []string{"BEGIN READ ONLY", "EXPLAIN FORMAT=JSON SELECT 1", "ROLLBACK"}) {
		t.Fatalf("asked %q", got)
	}
}

func TestMySQLPlanOfNoRowsIsAnError(t *testing.T) {
	t.Parallel()
	if _, _, err := ask(t, explainMySQL, "SELECT 1", []string{"EXPLAIN"}); err == nil {
		t.Fatal("no error")
	}
}

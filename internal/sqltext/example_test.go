package sqltext_test

import (
	"fmt"

	"github.com/gorminfra/infra/internal/sqltext"
)

func ExampleAnalyze() {
	for _, text := range []string{
		`SELECT * FROM users WHERE id IN (1, 2, 3)`,
		`WITH gone AS (DELETE FROM orders WHERE total < 5 RETURNING user_id) SELECT name FROM users JOIN gone ON user_id = id`,
		`SELECT nextval('invoices')`,
	} {
		st := sqltext.Analyze(text)
		fmt.Println(st.Shape)
		fmt.Println("  ", st.Operation, "reads", st.Reads, "writes", st.Writes, "on a replica:", st.ReadOnly())
	}
	// Output:
	// SELECT * FROM users WHERE id IN (?)
	//    select reads [users] writes [] on a replica: true
	// WITH gone AS (DELETE FROM orders WHERE total < ? RETURNING user_id) SELECT name FROM users JOIN gone ON user_id = id
	//    select reads [users] writes [orders] on a replica: false
	// SELECT nextval(?)
	//    select reads [] writes [] on a replica: false
}

package sqltext

import "testing"

func TestMentions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, name string
		want       bool
	}{
		{`SELECT products.stock FROM products`, "stock", true},
		{`SELECT p."Stock" FROM products p`, "stock", true},
		{`SELECT STOCK FROM products`, "stock", true},
		{`SELECT stock`, "stock", true},
		{`SELECT U&"st\006fck" FROM products`, "stock", true},
		{`SELECT '1'::mytype FROM products`, "mytype", true},
		{`SELECT "a b" FROM products`, "a b", true},
		{`SELECT a@@@b FROM products`, "@@@", true},
		{`SELECT a OPERATOR(public.@@@) b FROM products`, "@@@", true},
		{`SELECT stocks, in_stock, stock2 FROM products`, "stock", false},
		{`SELECT a @@ b FROM products`, "@@@", false},
		{`SELECT * FROM products`, "stock", false},
		{`SELECT 1`, "", true},
	} {
		if got := Parse(c.text).Mentions(c.name); got != c.want {
			t.Errorf("%s mentions %s: %v", c.text, c.name, got)
		}
	}
}

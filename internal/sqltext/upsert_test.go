package sqltext

import (
	"fmt"
	"testing"
)

func TestUpsert(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`INSERT INTO t (id, name) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET name = excluded.name`:                   "[id] [0] sets [name]",
		`INSERT INTO "t" ("name","id") VALUES ($1,$2),($3,$4) ON CONFLICT ("id") DO UPDATE SET "name"="excluded"."name"`: "[id] [1 3] sets [name]",
		"INSERT INTO `t` (`name`,`id`) VALUES (?,?) ON CONFLICT (`id`) DO UPDATE SET `name`=`excluded`.`name`":           "[id] [1] sets [name]",
		`INSERT INTO t AS x (a, b, c) VALUES (f($3, $4), $1, $2) ON CONFLICT (c, b) DO UPDATE SET a = coalesce(x.a, (SELECT 1 FROM u WHERE b = 2), 3), d[1] = 4, (e, f.g) = (5, 6)
			WHERE x.a > 1 RETURNING id, name`: "",
		`INSERT INTO t AS x (a, b, c) VALUES (f($3, $4), $1, $2) ON CONFLICT (c, b) DO UPDATE SET a = coalesce(x.a, (SELECT 1 FROM u WHERE b = 2), 3), d[1] = 4, (e, f) = (5, 6), g.h = 7
			WHERE x.a > 1 RETURNING id, name`: "[c b] [1 0] sets [a d e f g]",
		`INSERT INTO t (id) VALUES ($1) ON CONFLICT DO NOTHING`:                                   "nothing",
		`INSERT INTO t (id) VALUES (1), (2) ON CONFLICT (id) DO NOTHING RETURNING id`:             "nothing [id]",
		`INSERT INTO t (id) VALUES ($1) ON CONFLICT ON CONSTRAINT t_pkey DO NOTHING`:              "nothing",
		`INSERT INTO t (id) VALUES ($1) ON CONFLICT ON CONSTRAINT t_pkey DO UPDATE SET a = 1`:     "sets [a]",
		`INSERT INTO t (id) VALUES ($1) ON CONFLICT (id) WHERE a > 1 DO UPDATE SET a = 1`:         "sets [a]",
		`INSERT INTO t (id) VALUES ($1) ON CONFLICT (id COLLATE "C") DO UPDATE SET a = 1`:         "sets [a]",
		`INSERT INTO t (id) VALUES ($1) ON CONFLICT (lower(id)) DO UPDATE SET a = 1`:              "sets [a]",
		`INSERT INTO t (id) VALUES ($1) ON CONFLICT ((id)) DO UPDATE SET a = 1`:                   "sets [a]",
		`INSERT INTO t (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET a = 1`:                      "[id] sets [a]",
		`INSERT INTO t (id) VALUES ($1), (2) ON CONFLICT (id) DO UPDATE SET a = 1`:                "[id] sets [a]",
		`INSERT INTO t (id) VALUES ($1::int) ON CONFLICT (id) DO UPDATE SET a = 1`:                "[id] sets [a]",
		`INSERT INTO t (id) VALUES ($1 + 1) ON CONFLICT (id) DO UPDATE SET a = 1`:                 "[id] sets [a]",
		`INSERT INTO t (id) VALUES (-$1) ON CONFLICT (id) DO UPDATE SET a = 1`:                    "[id] sets [a]",
		`INSERT INTO t (id) VALUES (DEFAULT) ON CONFLICT (id) DO UPDATE SET a = 1`:                "[id] sets [a]",
		`INSERT INTO t (id, a) VALUES ($1, $1) ON CONFLICT (id) DO UPDATE SET a = 1`:              "[id] sets [a]",
		`INSERT INTO t (id, a) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET a = $1`:              "[id] sets [a]",
		`INSERT INTO t (id, a) VALUES ($1) ON CONFLICT (id) DO UPDATE SET a = 1`:                  "[id] sets [a]",
		`INSERT INTO t (a) VALUES ($1) ON CONFLICT (id) DO UPDATE SET a = 1`:                      "[id] sets [a]",
		`INSERT INTO t (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET id = $2`:                   "[id] [0] sets [id]",
		`INSERT INTO t (id) OVERRIDING USER VALUE VALUES ($1) ON CONFLICT (id) DO UPDATE SET a=1`: "",
		`INSERT INTO t VALUES ($1) ON CONFLICT (id) DO UPDATE SET a = 1`:                          "",
		`INSERT INTO t (id) SELECT $1 ON CONFLICT (id) DO UPDATE SET a = 1`:                       "",
		`INSERT INTO t (id) (VALUES ($1)) ON CONFLICT (id) DO UPDATE SET a = 1`:                   "",
		`INSERT INTO t (id) VALUES ($1)`:                                                          "",
		`INSERT INTO t DEFAULT VALUES ON CONFLICT DO NOTHING`:                                     "",
		`INSERT INTO t (id) VALUES (?) ON CONFLICT (id) DO NOTHING ON CONFLICT DO UPDATE SET a=1`: "",
		`INSERT INTO t (id) VALUES (?) ON CONFLICT (id) DO UPDATE SET a=1 ON CONFLICT DO NOTHING`: "",
		`INSERT INTO t (id) VALUES (?) ON DUPLICATE KEY UPDATE a = 1`:                             "",
		`WITH w AS (INSERT INTO t (id) VALUES ($1) ON CONFLICT DO NOTHING) SELECT 1`:              "",
		`INSERT INTO t (id) VALUES ($1) ON CONFLICT DO NOTHING; SELECT 1`:                         "",
	} {
		got := ""
		if u := Parse(text).Upsert; u != nil {
			words := []any{}
			if u.Nothing {
				words = append(words, "nothing")
			}
			if u.Target != nil {
				words = append(words, u.Target)
			}
			if u.Keys != nil {
				words = append(words, u.Keys)
			}
			if u.Sets != nil {
				words = append(words, "sets", u.Sets)
			}
			got = fmt.Sprintln(words...)
			got = got[:len(got)-1]
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

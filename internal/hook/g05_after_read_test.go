package hook_test

import (
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// Each of these writes where a read has just run, on a replica in the variants:
// a replica refuses.
func init() {
	behaviours["G05"] = []scenario{
		{name: "create-in-AfterFind", run: func(e *env) {
			e.seed()
			ctx := onHook(e.t.Context(), func(name string, w *Witness, tx *gorm.DB) error {
				if name != "AfterFind" {
					return nil
				}
				return tx.Create(&Company{Name: "seen " + w.Name}).Error
			})
			var ws []Witness
			e.did("find", e.db.WithContext(ctx).Order("id").Find(&ws), ws)
			e.note("written %d", e.count("SELECT count(*) FROM companies WHERE name LIKE 'seen%'"))
		}},
		{name: "transaction-in-AfterFind", run: func(e *env) {
			e.seed()
			ctx := onHook(e.t.Context(), func(name string, w *Witness, tx *gorm.DB) error {
				if name != "AfterFind" {
					return nil
				}
				return tx.Transaction(func(tx *gorm.DB) error {
					return tx.Model(w).Update("name", w.Name+"!").Error
				})
			})
			e.did("first", e.db.WithContext(ctx).First(&Witness{}))
			e.note("written %d", e.count("SELECT count(*) FROM witnesses WHERE name = 'w1!'"))
		}},
		{name: "begin-in-AfterFind", run: func(e *env) {
			e.seed()
			ctx := onHook(e.t.Context(), func(name string, w *Witness, tx *gorm.DB) error {
				if name != "AfterFind" {
					return nil
				}
				begun := tx.Begin()
				e.did("create", begun.Create(&Company{Name: w.Name}))
				return begun.Commit().Error
			})
			e.did("first", e.db.WithContext(ctx).First(&Witness{}))
			e.note("written %d", e.count("SELECT count(*) FROM companies WHERE name = 'w1'"))
		}},
		{name: "exec-in-AfterFind-of-a-preload", run: func(e *env) {
			e.seed()
			ctx := onHook(e.t.Context(), func(name string, _ *Witness, tx *gorm.DB) error {
				return tx.Exec("UPDATE companies SET name = ? WHERE id = 1", name).Error
			})
			type Group struct {
				ID        uint
				Witnesses []Witness `gorm:"foreignKey:ID;references:ID"`
			}
			var g Group
			e.did("first", e.db.WithContext(ctx).Table("companies").Preload("Witnesses").First(&g, 1), g)
			e.note("written %d", e.count("SELECT count(*) FROM companies WHERE name = 'AfterFind'"))
		}},
		{name: "create-in-FindInBatches", run: func(e *env) {
			e.seed()
			var ws []Witness
			e.did("batches", e.db.Order("id").FindInBatches(&ws, 2, func(tx *gorm.DB, batch int) error {
				e.note("batch %d of %d rows", batch, len(ws))
				for _, w := range ws {
					e.did("create", tx.Session(&gorm.Session{NewDB: true}).Create(&Company{Name: w.Name}))
				}
				return tx.Transaction(func(tx *gorm.DB) error {
					return tx.Session(&gorm.Session{NewDB: true}).Model(&Company{}).Where("name = ?", ws[0].Name).Update("name", "batched").Error
				})
			}))
			e.note("written %d", e.count("SELECT count(*) FROM companies WHERE name = 'batched'"))
		}},
		{name: "save-in-FindInBatches-saves-the-batch", run: func(e *env) {
			e.seed()
			var ws []Witness
			e.did("batches", e.db.FindInBatches(&ws, 3, func(tx *gorm.DB, _ int) error {
				for i := range ws {
					ws[i].Name += "+"
				}
				return tx.Save(&ws).Error
			}))
			e.note("written %d", e.count("SELECT count(*) FROM witnesses WHERE name LIKE '%+'"))
		}},
		{name: "write-on-the-chain-that-was-read-from", run: func(e *env) {
			e.seed()
			var ws []Witness
			read := e.db.Where("id > ?", 2).Find(&ws)
			e.did("find", read, ws)
			e.did("update on it", read.Model(&Witness{}).Update("name", "chained"))
			e.note("written %d", e.count("SELECT count(*) FROM witnesses WHERE name = 'chained'"))
		}},
		{name: "begin-on-the-chain-that-was-read-from", run: func(e *env) {
			e.seed()
			read := e.db.Model(&Witness{}).Where("id > ?", 2)
			var n int64
			e.did("count", read.Count(&n), n)
			tx := read.Begin()
			e.did("create", tx.Session(&gorm.Session{NewDB: true}).Create(&Company{Name: "b"}))
			e.did("commit", tx.Commit())
			e.got("transaction", read.Transaction(func(tx *gorm.DB) error {
				return tx.Session(&gorm.Session{NewDB: true}).Create(&Company{Name: "b"}).Error
			}))
			e.note("written %d", e.count("SELECT count(*) FROM companies WHERE name = 'b'"))
		}},
		{name: "write-inside-a-Rows-loop", run: func(e *env) {
			e.seed()
			rows, err := e.db.Model(&Witness{}).Order("id").Rows()
			e.must(err)
			defer rows.Close()
			for rows.Next() {
				var w Witness
				e.got("row", e.db.ScanRows(rows, &w), w)
				e.did("create", e.db.Create(&Company{Name: w.Name}))
			}
			e.must(rows.Err())
			e.note("written %d", e.count("SELECT count(*) FROM companies WHERE name LIKE 'w%'"))
		}},
		{name: "write-in-a-raw-select", run: func(e *env) {
			e.seed()
			var id int
			e.did("returning", e.db.Raw("INSERT INTO companies (name) VALUES ('r') RETURNING id").Scan(&id), id)
			e.did("find", e.db.Raw("UPDATE companies SET name = 'r2' WHERE name = ? RETURNING *", "r").Find(&[]Company{}))
			e.did("cte", e.db.Raw("WITH x AS (DELETE FROM companies WHERE name = 'r2' RETURNING id) SELECT id FROM x").Scan(&id), id)
			e.did("locking", e.db.Clauses(clause.Locking{Strength: "UPDATE"}).First(&Company{}))
			e.did("sequence", e.db.Raw("SELECT nextval('companies_id_seq')").Scan(&id), id)
			rows, err := e.db.Raw("INSERT INTO companies (name) VALUES ('s') RETURNING id").Rows()
			e.must(err)
			e.is("a row", rows.Next())
			e.must(rows.Close())
			var name string
			e.got("row", e.db.Raw("UPDATE companies SET name = 't' WHERE name = 's' RETURNING name").Row().Scan(&name), name)
			// Rows that the caller closes, and Scan is such a caller, tell the end too.
			e.events("autocommit before commit", "autocommit committed", "autocommit before commit", "autocommit committed",
				"autocommit before commit", "autocommit committed", "autocommit before commit", "autocommit committed",
				"autocommit before commit", "autocommit committed")
		}},
		{name: "function-of-the-user-that-writes", ownTables: true, run: func(e *env) {
			e.seed()
			e.exec(`CREATE FUNCTION touch() RETURNS bigint LANGUAGE sql AS 'INSERT INTO companies (name) VALUES (''touched'') RETURNING id';
				CREATE FUNCTION twice(bigint) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT 2 * $1'`)
			var n int
			e.did("volatile", e.db.Raw("SELECT touch()").Scan(&n), n)
			e.did("stable", e.db.Raw("SELECT twice(21)").Scan(&n), n)
			if e.hooked() {
				r := e.records()
				e.is("on the primary", r[0].Node == e.hub.Primary())
				e.is("on a replica", r[1].Node != e.hub.Primary())
			}
		}},
	}
}

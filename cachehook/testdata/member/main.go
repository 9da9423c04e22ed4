// Command member is one process of several that share a cache. It does what its
// standard input says, one line at a time, and answers each with one line:
//
//	write PRICE   in a transaction
//	update PRICE  in one statement outside transactions
//	read          the price
//	watch PRICE   reads until the price is that one; answers when the last read
//	              that showed another began, in nanoseconds since 1970
//
// Built with the tag faulthooks it kills itself where INFRA_TEST_CRASH says.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorminfra/infra/cachehook"
)

type product struct {
	ID    int64
	Name  string
	Price int64
}

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: member DSN REDIS NAME"))
	}
	db, err := gorm.Open(postgres.Open(os.Args[1]), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		fail(err)
	}
	cache := cachehook.New(cachehook.Config{
		Name: os.Args[3], Redis: redis.NewClient(&redis.Options{Addr: os.Args[2]}), Timeout: 5 * time.Second,
		Tables: map[string]cachehook.Rule{"products": {}}, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err := db.Use(cache); err != nil {
		fail(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := cache.Ready(ctx); err != nil {
		fail(err)
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		command, argument, _ := strings.Cut(in.Text(), " ")
		answer, err := do(db, command, argument)
		if err != nil {
			fail(err)
		}
		fmt.Println(answer)
	}
}

func do(db *gorm.DB, command, argument string) (answer any, err error) {
	switch command {
	case "write":
		return "done", db.Transaction(func(tx *gorm.DB) error {
			return tx.Exec("UPDATE products SET price = ? WHERE id = 1", argument).Error
		})
	case "update":
		return "done", db.Exec("UPDATE products SET price = ? WHERE id = 1", argument).Error
	case "read":
		return price(db)
	case "watch":
		return watch(db, argument)
	}
	return nil, fmt.Errorf("unknown command %q", command)
}

func price(db *gorm.DB) (int64, error) {
	var p product
	err := db.First(&p, 1).Error
	return p.Price, err
}

func watch(db *gorm.DB, until string) (last int64, err error) {
	for {
		began := time.Now().UnixNano()
		p, err := price(db)
		if err != nil || fmt.Sprint(p) == until {
			return last, err
		}
		last = began
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "member:", err)
	os.Exit(1)
}

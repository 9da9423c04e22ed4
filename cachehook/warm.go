package cachehook

import (
	"fmt"

	"gorm.io/gorm"
)

// runWarm runs one query; its panic is its error. Goexit in it ends warming.
func runWarm(w WarmQuery, db *gorm.DB) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return w.Run(db)
}

package infra
import (
_ "github.com/cespare/xxhash/v2"
_ "github.com/hashicorp/golang-lru/v2"
_ "github.com/jackc/pgx/v5"
_ "github.com/jackc/pgx/v5/stdlib"
_ "github.com/prometheus/client_golang/prometheus"
_ "github.com/prometheus/client_golang/prometheus/testutil"
_ "github.com/prometheus/client_golang/prometheus/promhttp"
_ "github.com/redis/go-redis/v9"
_ "go.uber.org/goleak"
_ "golang.org/x/sync/errgroup"
_ "gorm.io/driver/postgres"
_ "gorm.io/gorm"
_ "gorm.io/plugin/dbresolver"
)

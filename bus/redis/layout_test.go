package redis_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"parley/bus/bustest"
	"parley/bus/redis"
)

func TestNodesShareALayoutOrRefuse(t *testing.T) {
	s := bustest.StartRedis(t)
	c := s.Client()
	cfg := redis.Config{URL: s.URL()}
	openRedis(t, cfg)
	if ttl := c.TTL(t.Context(), "parley:layout").Val(); ttl < 50*time.Minute {
		t.Errorf("the layout's key lives for %v", ttl)
	}
	openRedis(t, cfg) // shares it

	if err := c.Del(t.Context(), "parley:layout").Err(); err != nil { // as nodes leave it that do not know of layouts
		t.Fatal(err)
	}
	openRedis(t, cfg)

	if err := c.Set(t.Context(), "parley:layout", "another", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	b, err := redis.Open(t.Context(), cfg)
	if err == nil {
		b.Close()
		t.Fatal("opened among nodes of another layout")
	}
	if !errors.Is(err, redis.ErrMisconfigured) || !strings.Contains(err.Error(), "layout another") || strings.Contains(err.Error(), "\n") {
		t.Errorf("refused with: %v", err)
	}
}

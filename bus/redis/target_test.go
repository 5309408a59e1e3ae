package redis_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/bus/bustest"
	"parley/bus/redis"
)

func TestRedisURLs(t *testing.T) {
	for url, ok := range map[string]bool{
		"redis://h":                  true,
		"rediss://u:s3cret@h:1/2":    true,
		"unix://u:s3cret@/s":         true,
		"redis+sentinel://h:1/rooms": true,
		"redis+sentinel://u:s3cret@h:1,[::1]:2/rooms?sentinel_password=s3cret&db=3": true,
		"rediss+sentinel://:s3c@ret@h:1,g:2/rooms?skip_verify=true":                 true,
		"redis+cluster://u:s3cret@h:1,g:2":                                          true,
		"rediss+cluster://h:1?read_timeout=1s":                                      true,
		"redis://u:s3cret@h?db=3;pool_size=4":                                       false, // which would be the database 0
		"unix://u:s3cret@/s?%zz":                                                    false,
		"redis+sentinel://h:1":                                                      false, // no name
		"redis+sentinel://u:s3cret@h/rooms":                                         false, // no port
		"redis+sentinel:///rooms":                                                   false,
		"redis+sentinel://u:s3cret@h:1/rooms?no_such=s3cret":                        false,
		"redis+cluster://u:s3cret@h:1/3":                                            false,
		"redis+cluster://u:s3cret@h:1?db=3":                                         false,
		"redis+cluster://h:1,":                                                      false,
		"unix+cluster://h:1":                                                        false,
		"redis+s3cret://u:s3cret@h:1":                                               false,
		"sentinel://u:s3cret@h:1":                                                   false,
		"redis+sentinel://u:s3cret@h:1/rooms?%zz":                                   false,
		"redis+cluster://u:%zzs3cret@h:1":                                           false,
	} {
		err := redis.Config{URL: url}.Check()
		if (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cret") || !errors.Is(err, redis.ErrMisconfigured)) {
			t.Errorf("%s: says %v", url, err)
		}
	}
}

func TestRedisFilesAreForTLS(t *testing.T) {
	pem := filepath.Join(t.TempDir(), "no.pem")
	if err := os.WriteFile(pem, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cfg  redis.Config
		says string
	}{
		{redis.Config{URL: "redis://h", CAFile: pem}, "begin with rediss"},
		{redis.Config{URL: "redis+sentinel://h:1/rooms", CertFile: pem, KeyFile: pem}, "begin with rediss"},
		{redis.Config{URL: "rediss://h", CAFile: pem}, "holds no certificate"},
		{redis.Config{URL: "rediss://h", CAFile: pem + "x"}, "no such file"},
		{redis.Config{URL: "rediss+cluster://h:1", CertFile: pem}, "go together"},
		{redis.Config{URL: "rediss://h", CertFile: pem, KeyFile: pem}, "PEM"},
	} {
		if err := c.cfg.Check(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, not %q", c.cfg, err, c.says)
		}
	}
}

// A password that the configuration has counts, and not that of the URL.
func TestRedisThePasswordOfTheConfigurationCounts(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	for password, ok := range map[string]bool{"secret": true, "": false} {
		r, err := redis.Open(t.Context(), redis.Config{URL: strings.Replace(limitedURL(server), "secret", "another", 1), Password: password})
		if err == nil {
			r.Close()
		}
		if (err == nil) != ok {
			t.Errorf("with the password %q: %v", password, err)
		}
	}
}

// What answers is not what the URL says: the line names the form that is right.
func TestRedisTheRightFormOfTheURLIsNamed(t *testing.T) {
	cluster := bustest.StartRedisTCP(t, "cluster-enabled yes")
	watched := bustest.StartSentinels(t, 0)
	for url, says := range map[string]string{
		"redis://" + cluster.Addr():                                "redis+cluster://",
		"redis://" + watched.Sentinels[0].Addr():                   "redis+sentinel://",
		strings.Replace(watched.URL(), "/rooms", "/other", 1):      "no primary of that name",
		"redis+sentinel://" + watched.Servers[0].Addr() + "/rooms": "unknown command",
	} {
		r, err := redis.Open(t.Context(), redis.Config{URL: url})
		if err == nil {
			r.Close()
			t.Fatalf("%s: opened", url)
		}
		if !strings.Contains(err.Error(), says) || !errors.Is(err, redis.ErrMisconfigured) {
			t.Errorf("%s: says %v, not %q", url, err, says)
		}
	}
}

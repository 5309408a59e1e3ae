package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// HealthCmd asks a node how it is, for the HEALTHCHECK of a container that has no other program.
type HealthCmd struct {
	URL     *url.URL      `name:"url" env:"PARLEY_HEALTH_URL" default:"http://127.0.0.1:8765/healthz" help:"What to ask. The certificate of a loopback address is not checked."`
	Timeout time.Duration `env:"PARLEY_HEALTH_TIMEOUT" default:"3s" help:"How long to wait for the answer."`
}

// Run implements "parley health".
func (c *HealthCmd) Run(env *Env) error {
	ctx, cancel := context.WithTimeout(env.Ctx, c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL.String(), nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		// The certificate names the service, not the loopback address, where there is nobody to guard against.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: isLoopback(c.URL.Hostname())}, //nolint:gosec // see above
	}}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("unhealthy: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 200))
		said := strings.Join(strings.Fields(string(body)), " ")
		return fmt.Errorf("unhealthy: %s answered %s: %s", c.URL.Redacted(), res.Status, said)
	}
	return nil
}

func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

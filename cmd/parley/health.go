package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"parley/cmd/internal/cli"
)

// HealthCmd asks a node how it is, for the HEALTHCHECK of a container that has no other program.
type HealthCmd struct {
	URL     string
	Timeout time.Duration
}

func (c *HealthCmd) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.URL, "url", "http://127.0.0.1:8765/healthz", "`URL` What to ask. The certificate of a loopback address is not checked.")
	f.DurationVar(&c.Timeout, "timeout", 3*time.Second, "How long to wait for the answer.")
	// Whoever sets PARLEY_TIMEOUT means a chat.
	cli.SetVariable(f, "url", "PARLEY_HEALTH_URL")
	cli.SetVariable(f, "timeout", "PARLEY_HEALTH_TIMEOUT")
}

// Validate refuses what cannot be asked, or not answered.
func (c *HealthCmd) Validate() error {
	switch u, err := url.Parse(c.URL); {
	case err != nil:
		return fmt.Errorf("--url: %w", err)
	case u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("--url: %q is no address such as http://127.0.0.1:8765/healthz", c.URL)
	case c.Timeout <= 0:
		return errors.New("--timeout must be more than 0s")
	}
	return nil
}

// Run implements "parley health".
func (c *HealthCmd) Run(env *cli.Env) error {
	ctx, cancel := context.WithTimeout(env.Ctx, c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		// The certificate names the service, not the loopback address, where there is nobody to guard against.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: isLoopback(req.URL.Hostname())}, //nolint:gosec // see above
	}}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("unhealthy: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 200))
		said := strings.Join(strings.Fields(string(body)), " ")
		return fmt.Errorf("unhealthy: %s answered %s: %s", req.URL.Redacted(), res.Status, said)
	}
	return nil
}

func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// A small client: login, refresh, logout, and a look whether the tokens are refused then.
//
//	client URL API_KEY API_SECRET
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"
)

type tokens struct {
	AccessToken      string    `json:"access_token"`
	RefreshToken     string    `json:"refresh_token"`
	AccessExpiresAt  time.Time `json:"access_expires_at"`
	RefreshExpiresAt time.Time `json:"refresh_expires_at"`
	ClientID         int64     `json:"client_id"`
}

type answer struct {
	Success bool            `json:"success"`
	Data    json.RawMessage `json:"data"`
	Error   struct {
		Name    string `json:"name"`
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

type client struct {
	http http.Client
	url  string
}

// call posts body as JSON, or nothing, and returns the status and what was answered.
func (c *client) call(path, bearer string, body any) (int, answer, error) {
	var text bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&text).Encode(body); err != nil {
			return 0, answer{}, err
		}
	}
	req, err := http.NewRequest("POST", c.url+path, &text)
	if err != nil {
		return 0, answer{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, answer{}, err
	}
	defer resp.Body.Close()
	var a answer
	err = json.NewDecoder(resp.Body).Decode(&a)
	return resp.StatusCode, a, err
}

// grant is a call that gives tokens.
func (c *client) grant(path string, body any) (tokens, error) {
	var t tokens
	status, a, err := c.call(path, "", body)
	if err != nil {
		return t, err
	}
	if status != 200 || !a.Success {
		return t, fmt.Errorf("%s: %d %+v", path, status, a.Error)
	}
	return t, json.Unmarshal(a.Data, &t)
}

func run(url, key, secret string) error {
	c := &client{http: http.Client{Timeout: 20 * time.Second}, url: url}
	first, err := c.grant("/auth/login", map[string]string{"username": key, "password": secret})
	if err != nil {
		return err
	}
	if life := time.Until(first.AccessExpiresAt); life < 59*time.Minute || life > time.Hour {
		return fmt.Errorf("the access token lives %v", life)
	}
	second, err := c.grant("/auth/refresh", map[string]string{"refresh_token": first.RefreshToken})
	if err != nil {
		return err
	}
	if second.ClientID != first.ClientID || second.AccessToken == first.AccessToken {
		return fmt.Errorf("refresh gave the same tokens, or another client's")
	}
	status, a, err := c.call("/auth/logout", second.AccessToken, nil)
	if err != nil || status != 200 {
		return fmt.Errorf("logout: %d %+v %v", status, a.Error, err)
	}
	for _, bearer := range []string{first.AccessToken, second.AccessToken} {
		status, a, err := c.call("/auth/logout", bearer, nil)
		if err != nil || status != 401 || a.Error.Name != "UnauthorizedError" || a.Error.Message != "Invalid token" {
			return fmt.Errorf("after logout: %d %+v %v", status, a.Error, err)
		}
	}
	if _, err := c.grant("/auth/refresh", map[string]string{"refresh_token": second.RefreshToken}); err == nil {
		return fmt.Errorf("the refresh token works after logout")
	}
	return nil
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: client URL API_KEY API_SECRET")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("all is well")
}

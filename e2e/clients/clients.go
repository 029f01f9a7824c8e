// Go's OAuth client, unmodified: what it does when its token was revoked. run.py calls it with the library's version and the
// file that names the server, an API and a client. It has no clock that could be set ahead, so the file's tokens are short.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

type names struct {
	URL string `json:"url"`
	API string `json:"api"`
	App struct {
		Key    string `json:"api_key"`
		Secret string `json:"api_secret"`
	} `json:"app"`
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func (n names) config() clientcredentials.Config {
	return clientcredentials.Config{ClientID: n.App.Key, ClientSecret: n.App.Secret, TokenURL: n.URL + "/oauth2/token"}
}

func (n names) passes(client *http.Client) bool {
	response, err := client.Get(n.API)
	check(err)
	check(response.Body.Close())
	return response.StatusCode == http.StatusOK
}

func (n names) logOut() {
	body, err := json.Marshal(map[string]string{"username": n.App.Key, "password": n.App.Secret})
	check(err)
	response, err := http.Post(n.URL+"/auth/login", "application/json", bytes.NewReader(body))
	check(err)
	var login struct {
		Data struct {
			AccessToken string `json:"access_token"`
		} `json:"data"`
	}
	check(json.NewDecoder(response.Body).Decode(&login))
	request, err := http.NewRequest(http.MethodPost, n.URL+"/auth/logout", nil)
	check(err)
	request.Header.Set("Authorization", "Bearer "+login.Data.AccessToken)
	response, err = http.DefaultClient.Do(request)
	check(err)
	if response.StatusCode != http.StatusOK {
		panic(response.Status)
	}
}

func main() {
	var n names
	text, err := os.ReadFile(os.Args[2])
	check(err)
	check(json.Unmarshal(text, &n))
	ctx, config := context.Background(), n.config()
	// What config.Client does, but for the token, whose end is looked at.
	source := config.TokenSource(ctx)
	client := oauth2.NewClient(ctx, source)
	token, err := source.Token()
	check(err)
	if !n.passes(client) {
		panic("it does not work at all")
	}
	n.logOut()
	found := "recovers on the same call"
	if !n.passes(client) {
		for !n.passes(client) {
			time.Sleep(50 * time.Millisecond)
		}
		found = fmt.Sprintf("dead until %.0f s before the token expires", time.Until(token.Expiry).Seconds())
	}
	n.logOut()
	client = config.Client(ctx)
	if !n.passes(client) {
		panic("its recipe does not help")
	}
	row := map[string]string{"label": "Go x/oauth2", "version": os.Args[1], "found": found, "recipe": "client = config.Client(ctx)"}
	check(json.NewEncoder(os.Stdout).Encode(row))
}

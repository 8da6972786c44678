// ClientWebSocket of the .NET class library as a client of an echo server.
// usage: mono dotnet_client.exe URL
// Its API has no pings. Reports JSON lines as report.mjs describes them.

using System;
using System.IO;
using System.Linq;
using System.Net.WebSockets;
using System.Text;
using System.Threading;

static class DotnetClient
{
    /// <summary>What arrived: a message, or a close frame with its code.</summary>
    struct Received
    {
        public WebSocketMessageType Kind;
        public byte[] Bytes;
        public int Code;
    }

    static string url;
    static int failures;

    static ClientWebSocket Open()
    {
        var ws = new ClientWebSocket();
        ws.Options.AddSubProtocol("chat");
        ws.Options.AddSubProtocol("superchat");
        ws.ConnectAsync(new Uri(url), CancellationToken.None).Wait();
        return ws;
    }

    static void Send(WebSocket ws, WebSocketMessageType kind, byte[] bytes, bool isLast = true)
    {
        ws.SendAsync(new ArraySegment<byte>(bytes), kind, isLast, CancellationToken.None).Wait();
    }

    static Received Next(WebSocket ws)
    {
        var message = new MemoryStream();
        var buffer = new byte[64 * 1024];
        while (true)
        {
            var result = ws.ReceiveAsync(new ArraySegment<byte>(buffer), CancellationToken.None).Result;
            message.Write(buffer, 0, result.Count);
            if (result.MessageType == WebSocketMessageType.Close)
            {
                return new Received { Kind = result.MessageType, Code = (int)result.CloseStatus };
            }
            if (result.EndOfMessage) return new Received { Kind = result.MessageType, Bytes = message.ToArray() };
        }
    }

    static void Expect(WebSocket ws, WebSocketMessageType kind, byte[] bytes)
    {
        var received = Next(ws);
        if (received.Kind != kind) throw new Exception("got " + received.Kind + " " + received.Code);
        if (!received.Bytes.SequenceEqual(bytes)) throw new Exception("the bytes differ");
    }

    static void ExpectClose(WebSocket ws, int code)
    {
        var received = Next(ws);
        if (received.Kind != WebSocketMessageType.Close || received.Code != code)
        {
            throw new Exception("got " + received.Kind + " " + received.Code);
        }
    }

    static void Echoed(WebSocket ws, WebSocketMessageType kind, byte[] bytes)
    {
        Send(ws, kind, bytes);
        Expect(ws, kind, bytes);
    }

    static void Check(string name, Action body)
    {
        var only = Environment.GetEnvironmentVariable("PEER_ONLY");
        if (only != null && only != name) return;
        try
        {
            body();
            Report("{\"case\":\"" + name + "\"}");
        }
        catch (Exception error)
        {
            failures++;
            var text = new string(error.ToString().Select(c => c < ' ' || c > '~' || c == '"' || c == '\\' ? '?' : c).ToArray());
            Report("{\"case\":\"" + name + "\",\"error\":\"" + text + "\"}");
        }
    }

    static void Report(string line)
    {
        Console.Out.Write(line + "\n");
        Console.Out.Flush();
    }

    static byte[] TextOf(int size)
    {
        var text = new StringBuilder();
        for (var count = 0; text.Length < size; count++) text.Append(count).Append(' ');
        return Encoding.UTF8.GetBytes(text.ToString(0, size));
    }

    static byte[] BytesOf(int size)
    {
        return Enumerable.Range(0, size).Select(at => (byte)(at * 7 + (at >> 8))).ToArray();
    }

    static int Main(string[] arguments)
    {
        url = arguments[0];
        const WebSocketMessageType text = WebSocketMessageType.Text, binary = WebSocketMessageType.Binary;
        var ws = Open();
        Check("subprotocol", () =>
        {
            if (ws.SubProtocol != "chat") throw new Exception("got " + ws.SubProtocol);
        });
        foreach (var each in Environment.GetEnvironmentVariable("PEER_SIZES").Split(','))
        {
            var size = int.Parse(each);
            Check("text " + size, () => Echoed(ws, text, TextOf(size)));
            Check("binary " + size, () => Echoed(ws, binary, BytesOf(size)));
        }
        Check("unicode", () => Echoed(ws, text, Encoding.UTF8.GetBytes("Gr\u00fc\u00dfe, \u4e16\u754c \ud83d\udc1f")));
        Check("burst in order", () =>
        {
            for (var at = 0; at < 200; at++) Send(ws, text, Encoding.UTF8.GetBytes("message " + at));
            for (var at = 0; at < 200; at++) Expect(ws, text, Encoding.UTF8.GetBytes("message " + at));
        });
        Check("fragmented text", () =>
        {
            // The split is in the middle of a character.
            var bytes = Encoding.UTF8.GetBytes("\u00fcber den Flu\u00df");
            Send(ws, text, bytes.Take(1).ToArray(), false);
            Send(ws, text, new byte[0], false);
            Send(ws, text, bytes.Skip(1).ToArray());
            Expect(ws, text, bytes);
        });
        Check("fragmented binary", () =>
        {
            var bytes = BytesOf(3000);
            for (var at = 0; at < 3000; at += 100) Send(ws, binary, bytes.Skip(at).Take(100).ToArray(), at + 100 == 3000);
            Expect(ws, binary, bytes);
        });
        Check("close with code and reason", () =>
        {
            ws.CloseOutputAsync((WebSocketCloseStatus)3001, "done here", CancellationToken.None).Wait();
            // The server returns the code; returning the reason is optional.
            ExpectClose(ws, 3001);
        });
        Check("too big", () =>
        {
            var other = Open();
            Send(other, text, TextOf(int.Parse(Environment.GetEnvironmentVariable("PEER_TOO_BIG"))));
            ExpectClose(other, 1009);
        });
        Check("shutdown", () =>
        {
            var other = Open();
            Echoed(other, text, Encoding.UTF8.GetBytes("still here"));
            Report("{\"waiting\":\"shutdown\"}");
            ExpectClose(other, 1001);
            other.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, "", CancellationToken.None).Wait();
        });
        return failures == 0 ? 0 : 1;
    }
}

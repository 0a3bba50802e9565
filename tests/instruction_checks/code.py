"""Check the answers of the category "simple code" by running them.

A case is (setup, expression, expected). After the setup, the answer is run;
then the expression must give the expected value. The names it may use:
    answer   the answer as text
    result   the value of the answer, if the answer is an expression
    printed  what the answer printed
If the setup makes use of the text itself, as with a keyword, the answer is not run.
If SAME is expected, the expression is a piece of code from the prompt, and the
answer must be the text of what that code prints or, if it prints nothing, gives.
We run only our own committed entries here, never the output of a model.
"""

import contextlib
import io

SAME = object()

CASES = {
    "Write a Python expression for the number of items in the list words.": [
        ("words = ['sea', 'sky', 'sun']", "result", 3),
    ],
    "How do you get the first element of the list colors in Python?": [
        ("colors = ['red', 'blue']", "result", "red"),
    ],
    "I want the last item of a Python list called scores, using a negative index.": [
        ("scores = [4, 8, 15]", "result", 15),
    ],
    "The string name should appear in capital letters. Give the Python expression.": [
        ("name = 'Amara'", "result", "AMARA"),
    ],
    "Which Python expression is True exactly when the whole number n is even?": [
        ("n = 6", "result", True),
        ("n = 7", "result", False),
    ],
    "Add up all numbers in the list prices with one built-in function of Python.": [
        ("prices = [2, 3, 5]", "result", 10),
    ],
    "In Python, what gives the remainder when a is divided by b?": [
        ("a, b = 17, 5", "result", 2),
    ],
    "Square the number x with the power operator of Python.": [
        ("x = 9", "result", 81),
    ],
    (
        "Find the highest of all the values in the list temps. One Python "
        "expression, please."
    ): [
        ("temps = [12, 19, 7]", "result", 19),
    ],
    (
        "A new list with the items of ages, smallest first, while ages stays as it "
        "is: what do I write?"
    ): [
        ("ages = [30, 4, 12]", "result", [4, 12, 30]),
    ],
    "Use a slice to reverse the string text.": [
        ("text = 'stop'", "result", "pots"),
    ],
    "Write a list comprehension for the squares of n for n in range(5).": [
        ("", "result", [0, 1, 4, 9, 16]),
    ],
    (
        "Keep only the positive numbers n of the list nums by means of a list "
        "comprehension."
    ): [
        ("nums = [3, -1, 0, 8]", "result", [3, 8]),
    ],
    "Glue the strings in parts together with a comma between them.": [
        ("parts = ['a', 'b', 'c']", "result", "a,b,c"),
    ],
    "Break the string line into a list of its words at the spaces.": [
        ("line = 'the old boat'", "result", ["the", "old", "boat"]),
    ],
    (
        'Test in Python whether the string "milk" is one of the items in the list '
        "shopping."
    ): [
        ("shopping = ['tea', 'milk']", "result", True),
        ("shopping = []", "result", False),
    ],
    'From the dictionary person, look up what is stored under the key "age".': [
        ("person = {'name': 'Kofi', 'age': 31}", "result", 31),
    ],
    's holds digits such as "42". Turn it into an integer.': [
        ("s = '42'", "result", 42),
    ],
    "Work out the mean of the list marks from its sum and its length.": [
        ("marks = [2, 4, 9]", "result", 5.0),
    ],
    "The price p needs rounding to two decimal places. Python expression?": [
        ("p = 3.14159", "result", 3.14),
    ],
    "Remove spaces at both ends of the string reply.": [
        ("reply = '  yes '", "result", "yes"),
    ],
    (
        'How often does the letter "a" occur in the string fruit? Answer with a '
        "method call."
    ): [
        ("fruit = 'banana'", "result", 3),
    ],
    "Take every dash out of the string phone by replacing it with nothing.": [
        ("phone = '12-34-56'", "result", "123456"),
    ],
    'Check if filename ends in ".txt" (Python string method).': [
        ("filename = 'notes.txt'", "result", True),
        ("filename = 'a.png'", "result", False),
    ],
    (
        "Two floors of a house have the numbers a and b. Express in Python how far "
        "apart they are, never negative."
    ): [
        ("a, b = 2, 9", "result", 7),
        ("a, b = 9, 2", "result", 7),
    ],
    "Get just the first three characters of the string title with a slice.": [
        ("title = 'Python'", "result", "Pyt"),
    ],
    (
        "Build the list of whole numbers from 1 up to and including 10 with list and "
        "range."
    ): [
        ("", "result", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ],
    "Write a lambda with the argument x that gives x times 2.": [
        ("", "result(4)", 8),
        ("", "result(-1)", -2),
    ],
    "Some names in the list visitors appear twice. Make a set of them.": [
        ("visitors = ['Ana', 'Li', 'Ana']", "result", {"Ana", "Li"}),
    ],
    'Greet someone with an f-string: "Hello, " followed by the value of name.': [
        ("name = 'Omar'", "result", "Hello, Omar"),
    ],
    (
        "The variable eggs counts eggs. How many full boxes of 12 do they fill? Use "
        "whole-number division."
    ): [
        ("eggs = 50", "result", 4),
    ],
    'Give a Python expression that is "open" if door is true, else "shut".': [
        ("door = True", "result", "open"),
        ("door = False", "result", "shut"),
    ],
    "Translate into a Python condition: age is at least 18.": [
        ("age = 18", "result", True),
        ("age = 17", "result", False),
    ],
    (
        "Say with one chained comparison in Python that x lies from 1 to 10, both "
        "ends included."
    ): [
        ("x = 10", "result", True),
        ("x = 0", "result", False),
    ],
    "Put the lists first and second together into one longer list.": [
        ("first, second = [1], [2, 3]", "result", [1, 2, 3]),
    ],
    "A list of five zeros, please, made with the * sign.": [
        ("", "result", [0, 0, 0, 0, 0]),
    ],
    "A walk took h hours. Express its length in minutes as code.": [
        ("h = 3", "result", 180),
    ],
    (
        "The user typed SHOUTING text into the string message. Get it in lower-case "
        "letters."
    ): [
        ("message = 'COME HERE'", "result", "come here"),
    ],
    (
        "Python has a function that picks the smallest of the numbers a, b and c. "
        "Call it."
    ): [
        ("a, b, c = 5, 2, 9", "result", 2),
    ],
    "From the list queue, take every second item, beginning with the first one.": [
        ("queue = [1, 2, 3, 4, 5]", "result", [1, 3, 5]),
    ],
    (
        "Make a dictionary that maps each word w in words to its length (dict "
        "comprehension)."
    ): [
        ("words = ['to', 'tree']", "result", {"to": 2, "tree": 4}),
    ],
    "Append the number 7 to the Python list nums.": [
        ("nums = [1]", "nums", [1, 7]),
    ],
    "Write the short statement that increases counter by 1.": [
        ("counter = 4", "counter", 5),
    ],
    "Which line of Python shows the word Hello on the screen?": [
        ("", "printed", "Hello\n"),
    ],
    "I need the math module in my program. What goes at the top?": [
        ("", "math.sqrt(16)", 4.0),
    ],
    "Swap the values of a and b in a single Python assignment.": [
        ("a, b = 1, 2", "(a, b)", (2, 1)),
    ],
    "Take the last item off the list stack with its method for that.": [
        ("stack = [3, 6, 9]", "stack", [3, 6]),
        ("stack = [3, 6, 9]", "result", 9),
    ],
    "Sort the list nums in place by calling its own method.": [
        ("nums = [5, 1, 3]", "nums", [1, 3, 5]),
    ],
    "On one line, loop over the list pets with the variable pet and print each one.": [
        ("pets = ['cat', 'dog']", "printed", "cat\ndog\n"),
    ],
    "Store the number 5 in a variable called lives.": [
        ("", "lives", 5),
    ],
    'In the dictionary prices, set the entry for "tea" to 3.': [
        ("prices = {'tea': 2}", "prices", {"tea": 3}),
    ],
    "One-line if statement: when n is below zero, n becomes 0.": [
        ("n = -4", "n", 0),
        ("n = 4", "n", 4),
    ],
    "From the module math, import nothing but sqrt.": [
        ("", "sqrt(25)", 5.0),
    ],
    "Define a function add on one line that returns a plus b.": [
        ("", "add(2, 3)", 5),
    ],
    "Write a one-line function triple that returns three times its parameter x.": [
        ("", "triple(4)", 12),
    ],
    "Code a function is_odd(n) in one line; it tells whether n is odd.": [
        ("", "is_odd(3)", True),
        ("", "is_odd(8)", False),
    ],
    "A function last(items) should return the final item of a list. Define it.": [
        ("", "last(['x', 'y'])", "y"),
    ],
    (
        "Create the function seconds(minutes) that converts minutes into seconds, on "
        "one line."
    ): [
        ("", "seconds(2)", 120),
    ],
    (
        "One line of Python: the function same_back(word) is true if word reads the "
        "same backward."
    ): [
        ("", "same_back('level')", True),
        ("", "same_back('lemon')", False),
    ],
    "Give me a lambda that takes a and b and adds them.": [
        ("", "result(2, 5)", 7),
    ],
    'What does len("banana") give in Python?': [
        ("", 'len("banana")', SAME),
    ],
    "State the value of 7 // 2 as Python sees it.": [
        ("", "7 // 2", SAME),
    ],
    'Someone runs print("ab" * 3). What appears?': [
        ("", 'print("ab" * 3)', SAME),
    ],
    "Evaluate the Python expression [10, 20, 30][1].": [
        ("", "[10, 20, 30][1]", SAME),
    ],
    "Is 5 > 3 and 2 > 4 True or False?": [
        ("", "5 > 3 and 2 > 4", SAME),
    ],
    "If you type 2 ** 5 into Python, which number comes back?": [
        ("", "2 ** 5", SAME),
    ],
    "Which list results from list(range(3))?": [
        ("", "list(range(3))", SAME),
    ],
    'Predict the single letter that print("Python"[0]) shows.': [
        ("", 'print("Python"[0])', SAME),
    ],
    "Tell me what Python answers to 17 % 5.": [
        ("", "17 % 5", SAME),
    ],
    "A function definition in Python starts with which keyword?": [
        ("exec(answer + ' f(): return 3')", "f()", 3),
    ],
    "Name the list method that adds one item at the end in Python.": [
        ("items = [1]; getattr(items, answer)(2)", "items", [1, 2]),
    ],
    "What Python keyword leaves a loop early?": [
        ("exec('for i in range(9): ' + answer)", "i", 0),
    ],
    "In Python, what type do the values True and False have?": [
        ("", "type(True) is result", True),
    ],
    "Dividing by zero in a program raises which Python error?": [
        ("try: 1 / 0\nexcept Exception as e: error = type(e)", "result is error", True),
    ],
    (
        "A program wants to read a line typed by the user. Which built-in function "
        "does that?"
    ): [
        ("", "result.__name__", "input"),
    ],
    "What does this program print?\nx = 3\nx = x + 4\nprint(x)": [
        ("", "x = 3\nx = x + 4\nprint(x)", SAME),
    ],
    (
        "Read the loop and give the number it prints.\ntotal = 0\nfor n in [1, 2, "
        "3]:\n    total += n\nprint(total)"
    ): [
        ("", "total = 0\nfor n in [1, 2, 3]:\n    total += n\nprint(total)", SAME),
    ],
    'Which word shows up when the code runs?\nword = "tree"\nprint(word.upper())': [
        ("", 'word = "tree"\nprint(word.upper())', SAME),
    ],
    'Mend the line: a bracket is missing.\nprint("Good morning"': [
        ("", "printed", "Good morning\n"),
    ],
    (
        "Something small is missing after the condition. Write the line correctly.\n"
        'if ready print("Go")'
    ): [
        ("ready = True", "printed", "Go\n"),
    ],
    (
        "Write these words as a Python list of strings, in the same order.\nred, "
        "green, blue"
    ): [
        ("", "result", ["red", "green", "blue"]),
    ],
    (
        "The variable t should have the clearer name total. Rewrite the line.\nt = a "
        "+ b"
    ): [
        ("a, b = 4, 5", "total", 9),
    ],
    (
        "Give the name of the function that is defined here.\ndef cube(n):\n    "
        "return n ** 3"
    ): [
        ("def cube(n):\n    return n ** 3", "result(2)", 8),
    ],
    "Shorten the statement with +=.\nscore = score + 10": [
        ("score = 5", "score", 15),
    ],
    (
        "Turn this loop into one list comprehension that is stored in result.\n"
        "result = []\nfor n in nums:\n    result.append(n + 1)"
    ): [
        ("nums = [1, 5]", "result", [2, 6]),
    ],
    "Make a Python dictionary from these children and their ages.\nAna: 9, Ben: 11": [
        ("", "result", {"Ana": 9, "Ben": 11}),
    ],
    'Write the same thing as an f-string.\n"Hi " + user': [
        ("user = 'Mei'", "result", "Hi Mei"),
    ],
    (
        "How many times does the body of this loop run?\nfor i in range(2, 6):\n    "
        "ring_bell()"
    ): [
        ("", "str(len(range(2, 6))) == answer", True),
    ],
    "Say the Python condition without the word not.\nnot a == b": [
        ("a, b = 1, 2", "result", True),
        ("a, b = 2, 2", "result", False),
    ],
    "Put the formula into Python.\nthe sum of x and y, divided by 2": [
        ("x, y = 3, 6", "result", 4.5),
    ],
}


def run(code, space):
    """Run the code in space and set result and printed there."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            expression = compile(code, "<answer>", "eval")
        except SyntaxError:
            exec(compile(code, "<answer>", "exec"), space)
        else:
            space["result"] = eval(expression, space)
    space["printed"] = out.getvalue()


def check_code(entry):
    """Raise AssertionError if the entry's answer fails one of its cases."""
    prompt = "\n".join(filter(None, [entry["instruction"], entry["input"]]))
    answer = entry["output"]
    assert prompt in CASES, f"no case for {prompt!r}"
    for setup, expression, expected in CASES[prompt]:
        space = {"answer": answer}
        where = f"{prompt!r}: {answer!r}"
        try:
            exec(setup, space)
            if expected is SAME:
                assert expression in prompt, f"{expression!r} is not in the prompt"
                run(expression, space)
                value = space["printed"].rstrip("\n") or repr(space["result"])
                expected = answer
            else:
                if "answer" not in setup:
                    run(answer, space)
                value = eval(expression, space)
        except Exception as error:
            raise AssertionError(f"{where} raises {error!r}") from error
        same = type(value) is type(expected) and value == expected
        assert same, f"{where}: {expression} is {value!r}, not {expected!r}"

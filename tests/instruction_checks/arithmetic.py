"""An independent check of the "arithmetic" entries."""

import ast
import operator
import re
from fractions import Fraction as F

# The working of each prompt (instruction, and input on a line of its own).
# Clock times are counted in minutes after midnight.
WORKINGS = {
    "What is 12 times 8?": "12 * 8",
    "A baker fills 6 trays with 9 rolls each. How many rolls is that in all?": "6 * 9",
    "Subtract 27 from 83.": "83 - 27",
    "Half of a certain number is 18. Name that number.": "18 * 2",
    "Find the average of these three test scores.\n70, 80, 90": "(70 + 80 + 90) / 3",
    "Nadia has $20 and buys a scarf for $12.50. How much money does she have "
    "left?": "20 - 12.50",
    "The film starts at 6:40 and ends at 8:15 the same evening. How many "
    "minutes long is it?": "8 * 60 + 15 - (6 * 60 + 40)",
    "What remainder do you get when 47 is divided by 6?": "47 % 6",
    "Find 25% of 200.": "200 * 25 / 100",
    "Add up all the numbers in the list.\n14, 6, 30, 50": "14 + 6 + 30 + 50",
    "Work out the area of a rectangular garden 7 meters long and 5 "
    "meters wide.": "7 * 5",
    "Which number should replace the question mark? 9 + ? = 21": "21 - 9",
    "Share 56 marbles equally among 7 children; say what each child gets.": "56 / 7",
    "Please double 35.": "35 * 2",
    "If one spider has eight legs, how many legs do five spiders have "
    "together?": "5 * 8",
    "Evaluate 144 / 12.": "144 / 12",
    "Tomas ran 3 kilometers on Monday, 5 on Wednesday and 4 on Friday. What "
    "distance did he cover that week?": "3 + 5 + 4",
    "What do you get by squaring 9?": "9 ** 2",
    "There were 31 birds on the wire, then 14 flew off. How many birds "
    "stayed?": "31 - 14",
    "Compute (4 + 6) * 3.": "(4 + 6) * 3",
    "Our bus leaves at 9:20 and the ride takes 50 minutes. At what time do we "
    "arrive?": "9 * 60 + 20 + 50",
    "I thought of a number, multiplied it by 4 and got 48. What was my "
    "number?": "48 / 4",
    "A choir has 18 sopranos, 12 altos and 15 other singers. Count the "
    "singers.": "18 + 12 + 15",
    "How much is 1,000 minus 350?": "1000 - 350",
    "Three identical tickets cost $24 in total. What is the price of one "
    "ticket?": "24 / 3",
    "Calculate 7.5 + 2.25.": "7.5 + 2.25",
    "A square chessboard tile has sides of 6 centimeters. What is its "
    "perimeter?": "4 * 6",
    "Take the sum of 45 and 38.": "45 + 38",
    "One tenth of the 250 seats in the theater are empty. How many seats is "
    "that?": "250 / 10",
    "By how much is 91 greater than 64?": "91 - 64",
    "Use the note to answer: how many plants does Mei own?\nMei keeps 4 shelves "
    "of plants. There are 7 plants on every shelf.": "4 * 7",
    "Solve 15 x 6.": "15 * 6",
    "Omar reads 20 pages a day. How many days will a book of 180 pages take "
    "him?": "180 / 20",
    "What is three quarters of 40?": "40 * 3 / 4",
    "A farmer collected 75 eggs and broke 8 of them on the way home. How many "
    "whole eggs are left?": "75 - 8",
    "Divide 81 by 9, then add 5.": "81 / 9 + 5",
    "The morning was 12 degrees and the afternoon 9 degrees warmer. What was "
    "the afternoon temperature?": "12 + 9",
    "Triple the number 33.": "33 * 3",
    "A coat that cost $80 is now reduced by 10%. What is the new "
    "price?": "80 - 80 * 10 / 100",
    "How many times does 5 go into 65?": "65 / 5",
    "Fatima saves $15 every month. What will she have saved after one year?": "15 * 12",
    "Write the product of 11 and 11.": "11 * 11",
    "Read the shopping list and give the total cost.\nbread $3, cheese $5, milk "
    "$2": "3 + 5 + 2",
    "What number lies exactly halfway between 10 and 30?": "(10 + 30) / 2",
    "A ferry carries 40 cars per trip. How many cars can it carry in 8 "
    "trips?": "40 * 8",
    "Round 67 to the nearest ten.": "(67 + 5) // 10 * 10",
    "6 + 7 + 8 = ?": "6 + 7 + 8",
    "Lars walks from 2:15 until 3:00. For how many minutes does he "
    "walk?": "3 * 60 - (2 * 60 + 15)",
    "Find the cube of 3, that is, 3 x 3 x 3.": "3 ** 3",
    "Each pizza is cut in 8 slices, and 3 pizzas were ordered. After 20 slices "
    "are eaten, how many slices remain?": "3 * 8 - 20",
    "Multiply 250 by 4.": "250 * 4",
    "What percentage of 50 is 10?": "10 / 50 * 100",
    "A fence runs 36 meters all the way around a garden, with one post every 4 "
    "meters. How many posts are needed?": "36 / 4",
    "Fill in the blank: 100 - ___ = 58": "100 - 58",
    "A piano teacher gives five lessons a day, six days a week. How many "
    "lessons does she give weekly?": "5 * 6",
    "Sum the whole numbers from 1 to 5.": "1 + 2 + 3 + 4 + 5",
    "Aisha is 14 and her brother is 5 years younger. How old is he?": "14 - 5",
    "What is left over if 29 apples are packed in bags of 4?": "29 % 4",
    "Say what 0.5 + 0.75 equals.": "0.5 + 0.75",
    "Four friends split a dinner bill of $66 evenly. How much does each of them"
    " pay?": "66 / 4",
    "What is the square root of 49?": "49 / 7",
    "Work out the mean number of goals per game.\ngame 1: 2 goals, game 2: 5 "
    "goals, game 3: 3 goals, game 4: 2 goals": "(2 + 5 + 3 + 2) / 4",
    "Compute 9 * 9 - 1.": "9 * 9 - 1",
    "A rope 24 feet long is cut in 3 equal parts. How long is each piece?": "24 / 3",
    "What must I add to 76 to make 100?": "100 - 76",
    "A cook needs 2 eggs for one cake. She has 13 eggs; how many full cakes can"
    " she make?": "13 // 2",
    "Give the difference between 500 and 125.": "500 - 125",
    "A triangle has a base of 10 centimeters and a height of 6 centimeters. "
    "What is its area?": "10 * 6 / 2",
    "Please work out 18 divided by 4 as a decimal.": "18 / 4",
    "A class of 28 pupils has 15 girls. The others are boys. How many boys are "
    "there?": "28 - 15",
    "Quadruple 21.": "21 * 4",
    "Yesterday the shop sold 120 lamps, today half as many. How many lamps were"
    " sold over both days?": "120 + 120 / 2",
    "If x + 8 = 15, what is x?": "15 - 8",
    "A rectangle measures 9 by 4 inches. How far is it all the way "
    "round?": "2 * (9 + 4)",
    "How much change from $10 should you get for 4 pens at $1.50 "
    "each?": "10 - 4 * 1.50",
    "Calculate 20% of the amount given.\n150": "150 * 20 / 100",
    "Two buckets hold 8 liters each and a third holds 5 liters. How much water "
    "do all three hold?": "2 * 8 + 5",
    "What is 5 less than 2?": "2 - 5",
    "A train travels 90 kilometers each hour. How far does it go in 3 hours?": "90 * 3",
    "Minus 4 plus 10 makes what?": "-4 + 10",
    "Answer the riddle with one number.\nTake me away from 25 and you are left "
    "with 9.": "25 - 9",
    "The mountain hut is at 1,800 meters and the summit at 2,300 meters. How "
    "many meters must a hiker still climb?": "2300 - 1800",
    "Ten percent of a salary of $3,200 is put aside. How much is "
    "that?": "3200 * 10 / 100",
    "An old clock loses 2 minutes every day. How many minutes slow is it after "
    "9 days?": "2 * 9",
    "Find the result of 2 x 3 x 7.": "2 * 3 * 7",
    "Kofi had 12 stamps, was given 9 more, and then lost 5. How many stamps "
    "does he have now?": "12 + 9 - 5",
    "From the table below, how many visitors came on the weekend?\nFriday 300, "
    "Saturday 450, Sunday 650": "450 + 650",
    "Halve 500 and halve the result again.": "500 / 2 / 2",
    "A box of 48 crayons is shared by 6 tables. Then each table loses 1 crayon."
    " How many does a table have left?": "48 / 6 - 1",
    "Written as a simple fraction, what part of 12 is 4?": "4 / 12",
    "A cyclist rides at a steady 15 kilometers per hour. How many hours does a "
    "60-kilometer ride take?": "60 / 15",
    "Tell me how many corners 7 separate triangles have.": "7 * 3",
    "How many books does the library still have on its shelf?\nThe shelf held 50"
    " books. Readers borrowed 22 on Tuesday and returned 5 on Thursday.": "50 - 22 + 5",
    "Dinner must be ready at 7:00 and the roast needs 90 minutes. When should "
    "it go in the oven?": "7 * 60 - 90",
    "What is 2 to the power of 5?": "2 ** 5",
    "A tank was filled with 600 liters and loses 25 liters a day. How much is "
    "in it after 4 days?": "600 - 4 * 25",
    "Find the largest multiple of 7 below 50.": "(50 - 1) // 7 * 7",
    "Use the recipe line to say how many grams of flour are needed for 6 "
    "people.\nFlour: 75 grams per person": "6 * 75",
}
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def compute(working):
    """Returns the exact value of an expression such as "9 * (7 - 2) / 10"."""

    def value(node):
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        return F(ast.get_source_segment(working, node))

    return F(value(ast.parse(working, mode="eval").body))


def number_in(output):
    """The number of "1,000", "$7.50", "20%", "1/3", "5:30" or "24 rolls"."""
    clock = re.fullmatch(r"(\d+):(\d\d)", output)
    if clock:
        return F(60 * int(clock[1]) + int(clock[2]))
    form = r"\$?(-?\d{1,3}(,\d{3})*(\.\d+|/\d+)?)(%|( [a-z]+)*)"
    found = re.fullmatch(form, output)
    assert found, f"not a number with a unit: {output!r}"
    return F(found[1].replace(",", ""))


def check_arithmetic(entry):
    """Raises AssertionError unless the output is the value of the working."""
    prompt = (entry["instruction"] + "\n" + entry["input"]).strip()
    output = entry["output"]
    assert prompt in WORKINGS, f"no working for {prompt!r}"
    right = compute(WORKINGS[prompt])
    assert number_in(output) == right, f"{prompt!r}: {output!r}, but it is {right}"
    for word in re.findall("[a-z]+", output):
        known = word in ("square", "old") or word in prompt.lower()
        assert known, f"the unit {word!r} is not in the prompt {prompt!r}"
